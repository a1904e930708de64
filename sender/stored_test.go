package sender

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/vmcore"
)

// TestOpenAStoredDump sends on what a receiver stored: a page that is damaged is one that cannot be read.
func TestOpenAStoredDump(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	m := dumpdirtest.NewMachine(5, 60, 16)
	w, err := dumpdir.Create(dumpdir.OS{}, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	for i := range m.Chunks {
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	res, err := w.Seal(t.Context(), "")
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if n := unreadable(t, dir, m); n != 0 {
		t.Errorf("%d pages of a whole dump cannot be read", n)
	}
	b, err := os.ReadFile(res.VMCore)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 4
	if err := os.WriteFile(res.VMCore, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, res.VMCore, filepath.Join(dir, dumpdir.JournalName)} {
		if n := unreadable(t, path, m); n != 1 {
			t.Errorf("%s: %d pages cannot be read, want the damaged one", path, n)
		}
	}
}

// unreadable counts the pages of m that cannot be read from the dump at path.
func unreadable(t *testing.T, path string, m *dumpdirtest.Machine) (n int) {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	page := make([]byte, m.Facts.PageSize)
	for _, e := range m.Runs {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			switch err := s.image.ReadPage(page, pfn); {
			case errors.Is(err, vmcore.ErrCorrupt):
				n++
			case err != nil:
				t.Fatal(err)
			}
		}
	}
	return n
}
