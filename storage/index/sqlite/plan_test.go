package sqlite

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestPlans asks SQLite how it finds dumps: a search in the index of ids and no scan of all dumps, and a list of groups without the long rows.
func TestPlans(t *testing.T) {
	ix, err := Open(t.Context(), filepath.Join(t.TempDir(), "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ix.Close() }()
	for _, tc := range []struct {
		query string
		args  []any
		want  string
	}{
		{prefixQuery, []any{"ab", "", 9}, "SEARCH dump USING INDEX dump_id (id>? AND id<?)"},
		{sightingsQuery, []any{1, "h", "a", 9}, "SEARCH dump USING COVERING INDEX dump_sighting"},
	} {
		if plan := planOf(t, ix, tc.query, tc.args...); !strings.Contains(plan, tc.want) || strings.Contains(plan, "SCAN") {
			t.Error(plan)
		}
	}
}

// planOf returns the steps of a query.
func planOf(t *testing.T, ix *Index, query string, args ...any) string {
	t.Helper()
	rows, err := ix.db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, step)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(plan, "; ")
}
