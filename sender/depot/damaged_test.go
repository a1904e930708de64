package depot

import (
	"errors"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// TestSenderOfADamagedDumpWritesBesideIt comes back, over SFTP, to a dump whose journal lost its end, was emptied, or is gone: nothing of
// it is written, and the dump that comes gets the place of a challenger, also the next time.
func TestSenderOfADamagedDumpWritesBesideIt(t *testing.T) {
	m := dumpdirtest.NewMachine(3, 40, 8)
	for harm, do := range map[string]func(name string) error{
		"tail lost": func(name string) error { return cutThird(name) },
		"empty":     func(name string) error { return os.Truncate(name, 0) },
		"missing":   os.Remove,
	} {
		t.Run(harm, func(t *testing.T) {
			root := t.TempDir()
			s := &depot{Config: Config{FS: dumpdir.OS{}, Root: root}, host: m.Meta.Host}
			w, err := s.openOnce(m.Meta)
			if err != nil {
				t.Fatal(err)
			}
			dir := w.Dir()
			err = m.SetPlan(w)
			for i := range m.Chunks {
				err = errors.Join(err, w.PutChunk(&m.Chunks[i]))
			}
			_, sealErr := w.Seal(t.Context(), "")
			if err := errors.Join(err, sealErr, w.Close(), do(path.Join(dir, dumpdir.JournalName))); err != nil {
				t.Fatal(err)
			}
			before := everything(t, dir)
			for range 2 {
				w, err := s.openOnce(m.Meta)
				if err != nil {
					t.Fatal(err)
				}
				if want := path.Join(root, "next", m.Meta.Host, m.Meta.ID); w.Dir() != want {
					t.Errorf("stored in %s, want %s", w.Dir(), want)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if everything(t, dir) != before {
				t.Error("the damaged dump was written")
			}
		})
	}
}

// everything returns the names and contents of a directory.
func everything(t *testing.T, dir string) string {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range names {
		b, err := os.ReadFile(path.Join(dir, name.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(name.Name() + "\x00" + string(b) + "\x00")
	}
	return all.String()
}

// cutThird cuts a third of a file off.
func cutThird(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	return os.Truncate(name, info.Size()*2/3)
}
