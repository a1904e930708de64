package dumpdir_test

import (
	"bytes"
	"errors"
	"path"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// FuzzDirectory puts any journal beside a vmcore of any length: opening, verifying and resuming end with a result or an
// error of a known kind, and what can be resumed can be sealed, and verifies.
func FuzzDirectory(f *testing.F) {
	m := dumpdirtest.NewMachine(70, 30, 8)
	var vm []byte
	for chunks := range 3 {
		fsys := dumpdirtest.NewFS()
		w, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
		if err != nil {
			f.Fatal(err)
		}
		if err := m.SetPlan(w); err != nil {
			f.Fatal(err)
		}
		for i := range chunks {
			if err := w.PutChunk(&m.Chunks[i]); err != nil {
				f.Fatal(err)
			}
		}
		if _, err := w.Commit(); err != nil {
			f.Fatal(err)
		}
		if chunks == 2 {
			if _, err := w.Seal(f.Context(), "seed"); err != nil {
				f.Fatal(err)
			}
		}
		journal, _ := fsys.Bytes(path.Join(dir, dumpdir.JournalName))
		if chunks == 1 {
			vm, _ = fsys.Bytes(path.Join(dir, dumpdir.IncompleteName))
		}
		f.Add(journal, uint16(0))
	}
	f.Fuzz(func(t *testing.T, journal []byte, cut uint16) {
		journal = bytes.Clone(journal)
		if dumpdir.JournalMaxPFN(journal) > 1<<20 {
			return // the file system in memory has no holes
		}
		fsys := dumpdirtest.NewFS()
		if err := fsys.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
		fsys.SetBytes(path.Join(dir, dumpdir.JournalName), journal)
		fsys.SetBytes(path.Join(dir, dumpdir.IncompleteName), vm[:len(vm)-min(len(vm), int(cut))])
		verifyAny(t, fsys)
		w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{Reopen: true})
		if err != nil {
			wantKnown(t, err)
			return
		}
		_, sealed := w.Result()
		if _, err := w.Seal(t.Context(), "end"); err != nil {
			t.Fatalf("seal: %v", err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		rep := verifyAny(t, fsys)
		if sealed || rep == nil { // what the journal called final was not touched
			return
		}
		for _, f := range rep.Findings {
			if f.Where != "page" && f.Where != "chunk" { // pages were never checked to decode
				t.Fatalf("after recovery and seal: %+v", f)
			}
		}
	})
}

func verifyAny(t *testing.T, fsys dumpdir.FS) *dumpdir.Report {
	t.Helper()
	d, err := dumpdir.Open(fsys, dir)
	if err != nil {
		wantKnown(t, err)
		return nil
	}
	defer func() { _ = d.Close() }()
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{MaxFindings: 10})
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	return rep
}

func wantKnown(t *testing.T, err error) {
	t.Helper()
	if !isDamage(err) && !errors.Is(err, dumpdir.ErrUnsupported) && !errors.Is(err, dumpdir.ErrNotExist) {
		t.Fatalf("error of no known kind: %v", err)
	}
}
