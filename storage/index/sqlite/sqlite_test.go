package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/storage/index"
	"github.com/corehaul/corehaul/storage/index/indextest"
	"github.com/corehaul/corehaul/storage/index/sqlite"
)

func TestContract(t *testing.T) {
	indextest.Run(t, func(t *testing.T) func() index.Index {
		t.Helper()
		path := filepath.Join(t.TempDir(), "an odd?name#%41.db")
		return func() index.Index {
			ix, err := sqlite.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("the index is somewhere else: %v", err)
			}
			return ix
		}
	})
}

// TestUnusable tells a file that is at fault from one that cannot be had at the moment.
func TestUnusable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	if err := os.WriteFile(path, []byte("this is no database, and long enough to be seen as none, so that it is not taken for an empty one......"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path); !errors.Is(err, index.ErrUnusable) {
		t.Errorf("no database: %v", err)
	}
	if _, err := sqlite.Open(t.Context(), filepath.Join(path, "x")); err == nil || errors.Is(err, index.ErrUnusable) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := sqlite.Open(t.Context(), t.TempDir()); !errors.Is(err, index.ErrUnusable) {
		t.Errorf("a directory: %v", err)
	}
}

// TestMode: an index is for its owner only, a new one and one that an earlier version made.
func TestMode(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "index.db")
	for range 2 {
		ix, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) < 2 {
			t.Fatalf("%v, %v, want the index and what SQLite has beside it", entries, err)
		}
		for _, e := range entries {
			st, err := e.Info()
			if err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", e.Name(), st.Mode(), err)
			}
		}
		if err := errors.Join(ix.Close(), os.Chmod(path, 0o644)); err != nil { // as earlier versions made it
			t.Fatal(err)
		}
	}
}
