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
