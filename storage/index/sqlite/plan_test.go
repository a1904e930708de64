package sqlite

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestPrefixReadsOnlyMatches asks SQLite how it finds a dump: a search in the index of ids, and no scan of all dumps.
func TestPrefixReadsOnlyMatches(t *testing.T) {
	ix, err := Open(t.Context(), filepath.Join(t.TempDir(), "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ix.Close() }()
	rows, err := ix.db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+prefixQuery, "ab", "", 9)
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
	text := strings.Join(plan, "; ")
	if err := rows.Err(); err != nil || !strings.Contains(text, "SEARCH dump USING INDEX dump_id (id>? AND id<?)") || strings.Contains(text, "SCAN") {
		t.Errorf("%s, %v", text, err)
	}
}
