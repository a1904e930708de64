package crashtree_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/crashtree"
)

// TestSwappedDirectory: what takes the place of a directory while it is imported, a link to another dump or that dump itself, is not imported
// in its stead.
func TestSwappedDirectory(t *testing.T) {
	for name, swap := range map[string]func(dir, other string) error{
		"link":      func(dir, other string) error { return os.Symlink(other, dir) },
		"directory": func(dir, other string) error { return os.Rename(other, dir) },
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t)
			tr.put("a/vmcore", small(1))
			other := filepath.Dir(filepath.Dir(tr.put("../other/x/vmcore", small(2))))
			dir := filepath.Join(tr.root, "a")
			var out crashtree.Outcome
			err := crashtree.Walk(t.Context(), []string{tr.root}, crashtree.Visitor{
				Dump: func(f crashtree.Found) (err error) {
					if err := errors.Join(os.Rename(dir, dir+".old"), swap(dir, filepath.Join(other, "x"))); err != nil {
						return err
					}
					out, err = tr.im.Import(t.Context(), f)
					return err
				},
				Skip: func(path string, why error) error { return errors.Join(errors.New(path), why) },
			})
			if err != nil || out.Result != crashtree.Imported {
				t.Fatalf("%+v, %v", out, err)
			}
			want := tr.run(filepath.Join(tr.root, "a.old"))[filepath.Join("a.old", "vmcore")]
			if want.Ref != out.Ref || want.Result != crashtree.Present {
				t.Errorf("it imported %v, and the directory that was found has %v (%s)", out.Ref, want.Ref, want.Result)
			}
		})
	}
}

// TestSecondDataDirectory: dumps of another data directory are imported, those in its trash are not. A trash elsewhere is a directory
// like another.
func TestSecondDataDirectory(t *testing.T) {
	tr := newTree(t)
	tr.put("data/index.db", []byte("SQLite format 3"))
	tr.put("data/dumps/host/x/vmcore", small(1))
	tr.put("data/trash/x/vmcore", small(2))
	tr.put("data/incoming/x/vmcore", small(3))
	tr.put("crash/trash/vmcore", small(4))
	tr.want(map[string][2]string{
		"data/dumps/host/x/vmcore": {"imported complete"}, "crash/trash/vmcore": {"imported complete"},
	})
}
