package dumpdir_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/internal/race"
)

// TestConcurrent puts from many goroutines while others commit and look, and takes the dump over in the
// middle.
func TestConcurrent(t *testing.T) {
	m := dumpdirtest.NewMachine(40, 1200, 4)
	fsys := dumpdirtest.NewFS()
	w := start(t, fsys, dir, m)
	first := len(m.Chunks) / 2
	putConcurrently(t, w, m.Chunks[:first])
	next, err := w.Takeover()
	if err != nil {
		t.Fatal(err)
	}
	putConcurrently(t, next, m.Chunks[first:])
	if res, err := next.Seal(t.Context(), ""); err != nil || res.State != dumpdir.StateComplete {
		t.Fatalf("seal: %+v, %v", res, err)
	}
	wantClean(t, verify(t, fsys, dir))
	checkPages(t, fsys, m, []chunk.SeqRange{{Last: m.End.Chunks - 1}}, 1200)
}

func putConcurrently(t *testing.T, w *dumpdir.Writer, chunks []dumpdir.Chunk) {
	t.Helper()
	work := make(chan *dumpdir.Chunk)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for c := range work {
				if err := w.PutChunk(c); err != nil {
					t.Error(err)
				}
				if c.Seq%5 == 0 {
					if _, err := w.Commit(); err != nil {
						t.Error(err)
					}
				}
				w.Progress()
				w.Have()
				w.Manifest()
			}
		})
	}
	for i := range chunks {
		work <- &chunks[i]
	}
	close(work)
	wg.Wait()
}

// TestCommitsByItself puts more chunks than one append may hold: none is left out of what Commit returns.
func TestCommitsByItself(t *testing.T) {
	if race.Enabled {
		t.Skip("one goroutine: the race detector has nothing to find")
	}
	m := dumpdirtest.NewMachine(41, 17000, 1)
	w := start(t, dumpdir.OS{}, t.TempDir()+"/d", m)
	for i := range m.Chunks {
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	if w.Progress().Chunks == 0 {
		t.Error("nothing was committed on the way")
	}
	fresh, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	want := []chunk.SeqRange{{Last: m.End.Chunks - 1}}
	if diff := cmp.Diff(want, fresh); diff != "" {
		t.Errorf("commit (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, w.Have()); diff != "" {
		t.Errorf("have (-want +got):\n%s", diff)
	}
	if fresh, err = w.Commit(); err != nil || len(fresh) != 0 {
		t.Errorf("second commit: %v, %v", fresh, err)
	}
}

func TestLogOnlyThenPages(t *testing.T) {
	m := dumpdirtest.NewMachine(42, 60, 8)
	fsys := dumpdirtest.NewFS()
	w, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Seal(t.Context(), "sender went away"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.StartPlan(m.Facts); !errors.Is(err, dumpdir.ErrSealed) {
		t.Errorf("plan after the seal: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w, err = dumpdir.Resume(fsys, dir, dumpdir.Options{Reopen: true}); err != nil {
		t.Fatal(err)
	}
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	putAll(t, w, m.Chunks)
	if res, err := w.Seal(t.Context(), ""); err != nil || res.State != dumpdir.StateComplete {
		t.Fatalf("seal: %+v, %v", res, err)
	}
	wantClean(t, verify(t, fsys, dir))
}

// TestRecoveryDropsWhatDoesNotMatch spoils committed data and journal, as a disk that lies about a sync does: the
// chunks that are hit are missing afterwards, the others are not.
func TestRecoveryDropsWhatDoesNotMatch(t *testing.T) {
	m := dumpdirtest.NewMachine(43, 100, 8)
	for name, spoil := range map[string]func(t *testing.T, fsys *dumpdirtest.FS){
		"page data": func(t *testing.T, fsys *dumpdirtest.FS) {
			t.Helper()
			b, _ := fsys.Bytes(dir + "/" + dumpdir.IncompleteName)
			flip(t, fsys, dumpdir.IncompleteName, int64(len(b)-len(m.Chunks[5].Data)-1), 0)
		},
		"journal": func(t *testing.T, fsys *dumpdirtest.FS) {
			t.Helper()
			b, _ := fsys.Bytes(dir + "/" + dumpdir.JournalName)
			flip(t, fsys, dumpdir.JournalName, int64(len(b)-len(m.Chunks[5].Extents)*12-len(m.Chunks[5].Pages)*8-40-12-3), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := dumpdirtest.NewFS()
			w := start(t, fsys, dir, m)
			putAll(t, w, m.Chunks[:6])
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			spoil(t, fsys)
			w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]chunk.SeqRange{{Last: 3}, {First: 5, Last: 5}}, w.Have()); diff != "" {
				t.Errorf("have (-want +got):\n%s", diff)
			}
			putAll(t, w, m.Chunks[4:5])
			putAll(t, w, m.Chunks[6:])
			if res, err := w.Seal(t.Context(), ""); err != nil || res.State != dumpdir.StateComplete {
				t.Fatalf("seal: %+v, %v", res, err)
			}
			wantClean(t, verify(t, fsys, dir))
			checkPages(t, fsys, m, []chunk.SeqRange{{Last: m.End.Chunks - 1}}, 100)
		})
	}
}

// TestRecoveryRefusesDamagedPlan spoils the plan: nothing is changed, and the error says where.
func TestRecoveryRefusesDamagedPlan(t *testing.T) {
	m := dumpdirtest.NewMachine(44, 100, 8)
	fsys := dumpdirtest.NewFS()
	w := start(t, fsys, dir, m)
	putAll(t, w, m.Chunks[:2])
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, fsys, dumpdir.JournalName, 200, 1)
	before := fsys.String()
	_, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
	if d, ok := errors.AsType[*dumpdir.DamageError](err); !ok || d.File != dumpdir.JournalName {
		t.Errorf("got %v", err)
	}
	if after := fsys.String(); after != before {
		t.Errorf("files changed:\n%s\n%s", before, after)
	}
	if rep := verify(t, fsys, dir); rep.OK() || rep.State != dumpdir.StateDamaged {
		t.Errorf("verify: %+v", rep)
	}
}
