package index_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/index"
)

func open(t *testing.T, path string) *index.Index {
	t.Helper()
	ix, err := index.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ix.Close() })
	return ix
}

func entry(id string, state dumpdir.State) *storage.Entry {
	return &storage.Entry{
		Ref: storage.Ref{Host: "h", ID: id}, Path: "dumps/h/" + id,
		Manifest: dumpdir.Manifest{Version: 1, ID: id, Host: "h", State: state, StartTime: time.Unix(1700000000, 0).UTC()},
	}
}

func states(t *testing.T, ix *index.Index) map[string]dumpdir.State {
	t.Helper()
	entries, err := ix.List(t.Context(), storage.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]dumpdir.State)
	for i := range entries {
		m[entries[i].ID] = entries[i].State()
	}
	return m
}

// TestOlderReadingChangesNothing is what keeps a rebuild from undoing what a session noted meanwhile.
func TestOlderReadingChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "an odd?name#%41.db")
	ix := open(t, path)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the index is somewhere else: %v", err)
	}
	scan := time.Now()
	if err := ix.Put(t.Context(), entry("gone", dumpdir.StateComplete), scan.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := ix.Put(t.Context(), entry("a", dumpdir.StateComplete), scan.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if built, err := ix.Built(t.Context()); err != nil || built {
		t.Errorf("built %v, %v", built, err)
	}
	read := []storage.Entry{*entry("a", dumpdir.StateArriving), *entry("b", dumpdir.StatePartial)}
	if err := ix.Rebuild(t.Context(), read, scan); err != nil {
		t.Fatal(err)
	}
	got := states(t, ix)
	if len(got) != 2 || got["a"] != dumpdir.StateComplete || got["b"] != dumpdir.StatePartial {
		t.Errorf("got %v", got)
	}
	if built, err := ix.Built(t.Context()); err != nil || !built {
		t.Errorf("built %v, %v", built, err)
	}
}

func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	a, b := open(t, path), open(t, path)
	if err := a.Put(t.Context(), entry("a", dumpdir.StateArriving), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), entry("a", dumpdir.StateComplete), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := states(t, a); got["a"] != dumpdir.StateComplete {
		t.Errorf("got %v", got)
	}
	if err := a.Delete(t.Context(), storage.Ref{Host: "h", ID: "a"}); err != nil {
		t.Fatal(err)
	}
	if got := states(t, b); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// TestUnusable tells a file that is at fault from one that cannot be had at the moment.
func TestUnusable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	if err := os.WriteFile(path, []byte("this is no database, and long enough to be seen as none, so that it is not taken for an empty one......"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := index.Open(t.Context(), path); !index.Unusable(err) {
		t.Errorf("no database: %v", err)
	}
	if _, err := index.Open(t.Context(), filepath.Join(path, "x")); err == nil || index.Unusable(err) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := index.Open(t.Context(), t.TempDir()); !index.Unusable(err) {
		t.Errorf("a directory: %v", err)
	}
}
