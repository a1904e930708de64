package local_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
)

// TestRelativeDataDirectory lists and finds what lies under a path that is relative, a link, or ends in a slash, with an index
// and without one, and also once the process works elsewhere.
func TestRelativeDataDirectory(t *testing.T) {
	top := t.TempDir()
	s := open(t, filepath.Join(top, "data"), storage.OpenOptions{})
	ref := receive(t, s, 1)
	if err := errors.Join(s.Close(), os.Symlink("data", filepath.Join(top, "link"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data", "./data/", "link", "link/", "../" + filepath.Base(top) + "/data"} {
		for _, indexed := range []bool{true, false} {
			if !indexed {
				if err := os.RemoveAll(filepath.Join(top, "data", "index.db")); err != nil {
					t.Fatal(err)
				}
			}
			t.Chdir(top)
			for _, opts := range []storage.OpenOptions{{ReadOnly: true}, {}} {
				s := open(t, name, opts)
				e := wantListed(t, s, 1)[0]
				if _, err := os.Stat(e.Path); err != nil || !filepath.IsAbs(e.Path) {
					t.Errorf("%s: path %s: %v", name, e.Path, err)
				}
				t.Chdir(os.TempDir())
				if _, err := s.Find(t.Context(), ref.ID); err != nil {
					t.Errorf("%s, from elsewhere: %v", name, err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				t.Chdir(top)
			}
		}
	}
	if rep, err := open(t, "link/", storage.OpenOptions{Existing: true}).Reindex(t.Context()); err != nil || rep.Dumps != 1 {
		t.Errorf("reindex %+v, %v", rep, err)
	}
	if _, err := local.Open(t.Context(), "nowhere", storage.OpenOptions{Existing: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such directory: %v", err)
	}
}

// statement runs SQL in an index.
func statement(text string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		db, err := sql.Open("sqlite", "file:"+path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

// replaced puts something else in the place of a file.
func replaced(suffix string, with func(path string) error) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(path+suffix), with(path+suffix)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnusableIndexIsPutAside has an index that this program cannot use, for whatever reason: who may only look reads the dumps
// and leaves it, all others put it aside and make a new one, and a reindex does as well.
func TestUnusableIndexIsPutAside(t *testing.T) {
	precious := filepath.Join(t.TempDir(), "precious")
	fifo := func(path string) error { return unix.Mkfifo(path, 0o600) }
	link := func(path string) error { return os.Symlink(precious, path) }
	for name, spoil := range map[string]func(*testing.T, string){
		"later schema":       statement("INSERT INTO goose_db_version (version_id, is_applied) VALUES (1000, 1)"),
		"no table":           statement("DROP TABLE dump"),
		"no mark":            statement("DROP TABLE built"),
		"no column":          statement("ALTER TABLE dump RENAME COLUMN manifest TO gone"),
		"no version":         statement("DROP TABLE goose_db_version"),
		"garbage":            replaced("", func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("garbage ", 512)), 0o600) }),
		"a directory":        replaced("", func(path string) error { return os.MkdirAll(filepath.Join(path, "x"), 0o700) }),
		"a FIFO":             replaced("", fifo),
		"a link":             replaced("", link),
		"a FIFO as log":      replaced("-wal", fifo),
		"a link as memory":   replaced("-shm", link),
		"a link as rollback": replaced("-journal", link),
	} {
		for _, aside := range []bool{false, true} {
			if aside && name != "garbage" && name != "a directory" {
				continue
			}
			t.Run(fmt.Sprintf("%s, name taken %v", name, aside), func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir, storage.OpenOptions{})
				receive(t, s, 1)
				ref := receive(t, s, 2)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				spoil(t, filepath.Join(dir, "index.db"))
				if aside { // the name for it is taken, by what is no file
					if err := os.MkdirAll(filepath.Join(dir, "index.db.damaged", "x"), 0o700); err != nil {
						t.Fatal(err)
					}
				}
				ro := open(t, dir, storage.OpenOptions{ReadOnly: true})
				wantListed(t, ro, 2)
				if _, err := ro.Find(t.Context(), ref.ID); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(filepath.Join(dir, "index.db.damaged")); !aside && err == nil {
					t.Error("who may only look put it aside")
				}
				if rep, err := open(t, dir, storage.OpenOptions{Existing: true}).Reindex(t.Context()); err != nil || rep.Dumps != 2 {
					t.Errorf("reindex %+v, %v", rep, err)
				}
				again := open(t, dir, storage.OpenOptions{})
				receive(t, again, 3)
				if got, err := again.List(t.Context(), storage.Filter{Host: storage.Patterns{ref.Host}, Limit: 9}); err != nil || len(got) != 3 {
					t.Errorf("%d listed, %v", len(got), err)
				}
				if _, err := os.Lstat(precious); err == nil {
					t.Error("a link was followed")
				}
			})
		}
	}
}
