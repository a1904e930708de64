package local_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
)

// errKilled is what a killed process gets to see, if it saw anything.
var errKilled = errors.New("killed")

// killFS stops all changes of names before the n-th, as a kill of the process does.
type killFS struct {
	dumpdir.FS
	left int
}

func (k *killFS) do(op func() error) error {
	if k.left--; k.left < 0 {
		return errKilled
	}
	return op()
}

func (k *killFS) Rename(from, to string) error {
	return k.do(func() error { return k.FS.Rename(from, to) })
}

// exchangeFS is a killFS on a file system that can exchange directories.
type exchangeFS struct{ *killFS }

func (x exchangeFS) Exchange(a, b string) error {
	return x.do(func() error { return dumpdir.OS{}.Exchange(a, b) })
}

func (k *killFS) SyncDir(name string) error { return k.do(func() error { return k.FS.SyncDir(name) }) }

// contest makes a store with a dump of one plan and its challenger of another, and nobody who writes them.
func contest(t *testing.T, dir string) (s *local.Store, ref storage.Ref, first, next *dumpdirtest.Machine) {
	t.Helper()
	s = open(t, dir, storage.OpenOptions{})
	first, next = dumpdirtest.NewMachine(3, 40, 16), dumpdirtest.NewMachine(4, 60, 16)
	next.Meta.ID = first.Meta.ID
	begin(t, first, s.Create)
	begin(t, next, s.Challengers().Create)
	return s, storage.Ref{Host: first.Meta.Host, ID: first.Meta.ID}, first, next
}

// creator makes a dump or a challenger.
type creator func(context.Context, dumpdir.Meta) (*dumpdir.Writer, error)

// begin stores the plan and the first chunk of a machine's dump.
func begin(t *testing.T, m *dumpdirtest.Machine, create creator) {
	t.Helper()
	w := put(t, m, create, 1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// bring stores the whole of it.
func bring(t *testing.T, m *dumpdirtest.Machine, create creator) {
	t.Helper()
	w := put(t, m, create, len(m.Chunks))
	if _, err := w.Seal(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// put stores the plan and so many chunks.
func put(t *testing.T, m *dumpdirtest.Machine, create creator, chunks int) *dumpdir.Writer {
	t.Helper()
	w, err := create(t.Context(), m.Meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	for i := range chunks {
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return w
}

// whose returns which of the machines the one dump of the store is of, page by page.
func whose(t *testing.T, s *local.Store, machines ...*dumpdirtest.Machine) *dumpdirtest.Machine {
	t.Helper()
	e := wantListed(t, s, 1)[0]
	d, err := s.Open(t.Context(), e.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	f, err := dumpdirtest.OpenVMCore(dumpdir.OS{}, d)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, m := range machines {
		if e.Manifest.Pages.Planned == m.End.Pages {
			if n, err := m.CheckPages(f, []chunk.SeqRange{{}}); err != nil || n == 0 || uint64(n) != e.Manifest.Pages.Present {
				t.Fatalf("%d pages: %v", n, err)
			}
			return m
		}
	}
	t.Fatalf("a dump of %d pages is nobody's", e.Manifest.Pages.Planned)
	return nil
}

// TestPromotionKilled kills a promotion before each step, and opens the store again, or goes on in
// the same process as if the disk had failed.
func TestPromotionKilled(t *testing.T) {
	for _, tc := range []struct{ again, exchange bool }{{true, false}, {false, false}, {true, true}, {false, true}} {
		done, stayed, went := false, 0, 0
		for n := 0; !done; n++ {
			dir := t.TempDir()
			s, ref, first, next := contest(t, dir)
			kill := &killFS{FS: dumpdir.OS{}, left: n}
			if s.SetFS(kill); tc.exchange {
				s.SetFS(exchangeFS{kill})
			}
			err := s.Challengers().Promote(t.Context(), ref)
			if done = err == nil; !done && !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			s.SetFS(dumpdir.OS{})
			if tc.again {
				s = open(t, dir, storage.OpenOptions{})
			}
			w, err := s.Resume(t.Context(), ref, storage.ResumeOptions{})
			if err != nil {
				t.Fatalf("killed before step %d: %v", n, err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			left, err := s.Challengers().List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			m := whose(t, s, first, next)
			if m == first {
				stayed++
			} else if !done {
				went++
			}
			// Exchanged and killed, the old one is the challenger until somebody compares them.
			if waits := len(left) == 1; waits != (m == first) && (!tc.exchange || done) || done && m == first {
				t.Errorf("killed before step %d: the first plan %t, challengers %v", n, m == first, left)
			}
		}
		if stayed == 0 || went == 0 {
			t.Errorf("%d kills left the old dump, %d the new one", stayed, went)
		}
	}
}

// TestPromotionKilledIsListed kills the promotion of a complete dump over another, and wants the index to
// say which one is there once the store is opened and asked for arriving dumps, as a receiver does.
func TestPromotionKilledIsListed(t *testing.T) {
	for n, done := 0, false; !done; n++ {
		dir := t.TempDir()
		s := open(t, dir, storage.OpenOptions{})
		ref := receive(t, s, 3)
		old, next := dumpdirtest.NewMachine(3, 40, 16), dumpdirtest.NewMachine(4, 60, 16)
		next.Meta.ID = ref.ID
		bring(t, next, s.Challengers().Create)
		s.SetFS(&killFS{FS: dumpdir.OS{}, left: n})
		done = s.Challengers().Promote(t.Context(), ref) == nil
		s = open(t, dir, storage.OpenOptions{})
		if got, err := s.List(t.Context(), storage.Filter{State: []dumpdir.State{dumpdir.StateArriving}}); err != nil || len(got) != 0 {
			t.Errorf("killed before step %d: %d dumps are arriving, %v", n, len(got), err)
		}
		got, err := s.List(t.Context(), storage.Filter{State: []dumpdir.State{dumpdir.StateComplete}})
		if err != nil || len(got) != 1 {
			t.Fatalf("killed before step %d: %d dumps are complete, %v", n, len(got), err)
		}
		if m := whose(t, s, old, next); got[0].Manifest.Pages.Present != m.End.Pages || done && m != next {
			t.Errorf("killed before step %d: %d pages are listed, and %d there", n, got[0].Manifest.Pages.Present, m.End.Pages)
		}
	}
}

// TestRemoveKilled kills a removal before each step: the challenger never comes in its dump's place.
func TestRemoveKilled(t *testing.T) {
	for n, done := 0, false; !done; n++ {
		dir := t.TempDir()
		s, ref, first, next := contest(t, dir)
		s.SetFS(&killFS{FS: dumpdir.OS{}, left: n})
		err := s.Remove(t.Context(), ref, storage.RemoveOptions{Force: true})
		if done = err == nil; !done && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		s = open(t, dir, storage.OpenOptions{})
		if done {
			wantListed(t, s, 0)
			continue
		}
		got, err := s.List(t.Context(), storage.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) > 0 && whose(t, s, first, next) != first {
			t.Errorf("killed before step %d: the challenger is there", n)
		}
	}
}

// TestChallengerOfADumpThatIsGone has somebody remove the directory of a dump by hand.
func TestChallengerOfADumpThatIsGone(t *testing.T) {
	dir := t.TempDir()
	s, ref, first, next := contest(t, dir)
	if err := os.RemoveAll(wantListed(t, s, 1)[0].Path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), first.Meta); !errors.Is(err, storage.ErrExists) {
		t.Errorf("create: %v", err)
	}
	if whose(t, s, first, next) != next {
		t.Error("the challenger did not take the place of a dump that is gone")
	}
	want := filepath.Join(dir, "dumps", ref.Host, "20231114T221320Z-00000000")
	if got := wantListed(t, s, 1)[0].Path; got != want {
		t.Errorf("it is in %s, want %s", got, want)
	}
}

// TestChallengerDamaged gives way to a new one, as a dump does.
func TestChallengerDamaged(t *testing.T) {
	dir := t.TempDir()
	s, ref, first, next := contest(t, dir)
	journal := filepath.Join(dir, "next", ref.Host, ref.ID, dumpdir.JournalName)
	b, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	b[200] ^= 1
	if err := os.WriteFile(journal, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Challengers().Resume(t.Context(), ref, storage.ResumeOptions{}); !errors.Is(err, storage.ErrNotFound) {
		t.Fatalf("resume: %v", err)
	}
	begin(t, next, s.Challengers().Create)
	if whose(t, s, first, next) != first {
		t.Error("the dump is another one")
	}
}

// TestDumpIsPutAside when a larger one takes its place, if it is complete or pinned.
func TestDumpIsPutAside(t *testing.T) {
	for _, tc := range []struct {
		name             string
		complete, pinned bool
		aside            int
	}{{"complete", true, false, 1}, {"pinned", false, true, 1}, {"both", true, true, 1}, {"neither", false, false, 0}} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, storage.OpenOptions{})
			old, next := dumpdirtest.NewMachine(3, 40, 16), dumpdirtest.NewMachine(4, 60, 16)
			next.Meta.ID = old.Meta.ID
			ref := storage.Ref{Host: old.Meta.Host, ID: old.Meta.ID}
			if tc.complete {
				bring(t, old, s.Create)
			} else {
				begin(t, old, s.Create)
			}
			begin(t, next, s.Challengers().Create)
			if tc.pinned {
				if err := s.SaveSide(t.Context(), ref, dumpdir.NewPin(time.Now(), "evidence"), nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Challengers().Promote(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
			if whose(t, s, old, next) != next {
				t.Error("the challenger is not the dump")
			}
			wantAside(t, filepath.Join(dir, "replaced"), tc.aside, tc.complete)
		})
	}
}

// wantAside checks what was put aside: so many dumps, undamaged.
func wantAside(t *testing.T, dir string, n int, complete bool) {
	t.Helper()
	aside, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil || len(aside) != n {
		t.Fatalf("put aside: %v, %v", aside, err)
	}
	for _, e := range aside {
		d, err := dumpdir.Open(dumpdir.OS{}, filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
		if err != nil || !rep.OK() || (d.State() == dumpdir.StateComplete) != complete {
			t.Errorf("put aside as %s: %+v, %v", d.State(), rep, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
