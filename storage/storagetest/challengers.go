package storagetest

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
)

// otherPlan returns the machine of m with another plan and other contents, so that a test notices a mix of both.
func otherPlan(m *dumpdirtest.Machine) *dumpdirtest.Machine {
	o := dumpdirtest.NewMachine(8, 60, 16)
	o.Meta.ID, o.Meta.Host, o.Meta.CrashTime = m.Meta.ID, m.Meta.Host, m.Meta.CrashTime
	return o
}

// challenge makes a challenger with log, plan and its first chunks.
func challenge(t *testing.T, s storage.Store, m *dumpdirtest.Machine, chunks int) *dumpdir.Writer {
	t.Helper()
	w, err := s.Challengers().Create(t.Context(), m.Meta)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	if err := w.StoreLog(bytes.NewReader(m.Log)); err != nil {
		t.Fatal(err)
	}
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	put(t, w, m, 0, chunks)
	return w
}

// put commits the chunks from first to before end.
func put(t *testing.T, w *dumpdir.Writer, m *dumpdirtest.Machine, first, end int) {
	t.Helper()
	for i := first; i < end; i++ {
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// checkPages compares the pages of a dump with those of its machine.
func checkPages(t *testing.T, s storage.Store, ref storage.Ref, m *dumpdirtest.Machine, chunks int) {
	t.Helper()
	d, err := s.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	f, err := dumpdirtest.OpenVMCore(dumpdir.OS{}, d)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	want := uint64(0)
	for i := range chunks {
		for _, e := range m.Chunks[i].Extents {
			want += e.Count
		}
	}
	there, err := m.CheckPages(f, []chunk.SeqRange{{Last: uint64(chunks) - 1}})
	if err != nil || uint64(there) != want || d.Progress().Present != want {
		t.Errorf("%d pages, the journal says %d, want %d: %v", there, d.Progress().Present, want, err)
	}
}

func wantChallengers(t *testing.T, s storage.Store, want ...storage.Ref) {
	t.Helper()
	got, err := s.Challengers().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("challengers (-want +got):\n%s", diff)
	}
}

// testChallenger: a challenger, from its creation to its promotion.
func testChallenger(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("a"), day)
	o := otherPlan(m)
	ref := storage.Ref{Host: m.Meta.Host, ID: m.Meta.ID}
	if _, err := s.Challengers().Create(t.Context(), o.Meta); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a challenger of nothing: %v", err)
	}
	w := begin(t, s, m)
	put(t, w, m, 0, 1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	next := challenge(t, s, o, 2)
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	wantChallengers(t, s, ref)
	if got := list(t, s, storage.Filter{}); len(got) != 1 || got[0].Manifest.Plan.Chunks != m.End.Chunks {
		t.Errorf("beside a challenger %v are listed", refs(got))
	}
	checkPages(t, s, ref, m, 1)
	next, err := s.Challengers().Resume(t.Context(), ref, storage.ResumeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, next, o, 2, 3)
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Challengers().Promote(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	for _, s := range []storage.Store{s, open()} {
		wantChallengers(t, s)
		got := list(t, s, storage.Filter{})
		if len(got) != 1 || got[0].State() != dumpdir.StateArriving || got[0].Manifest.Plan.Chunks != o.End.Chunks {
			t.Errorf("promoted: %+v", got)
		}
		checkPages(t, s, ref, o, 3)
	}
	if w, err = s.Resume(t.Context(), ref, storage.ResumeOptions{}); err != nil {
		t.Fatal(err)
	}
	put(t, w, o, 3, len(o.Chunks))
	if res, err := w.Seal(t.Context(), ""); err != nil || res.State != dumpdir.StateComplete {
		t.Errorf("seal: %+v, %v", res, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	checkOpen(t, s, ref, o)
}

// testChallengerBusy: who may have a challenger.
func testChallengerBusy(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("a"), day)
	o := otherPlan(m)
	ref := Receive(t, s, m, true)
	next := challenge(t, s, o, 1)
	other := open().Challengers()
	if _, err := s.Challengers().Resume(t.Context(), ref, storage.ResumeOptions{}); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("resume beside a session: %v", err)
	}
	for _, c := range []storage.Challengers{s.Challengers(), other} {
		if err := c.Promote(t.Context(), ref); !errors.Is(err, storage.ErrBusy) {
			t.Errorf("promote of what is written: %v", err)
		}
	}
	if _, err := other.Resume(t.Context(), ref, storage.ResumeOptions{Takeover: true}); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("resume beside another process: %v", err)
	}
	if _, err := other.Create(t.Context(), o.Meta); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("create in place of what another process writes: %v", err)
	}
	if err := other.Drop(t.Context(), ref); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("drop of what another process writes: %v", err)
	}
	w, err := s.Challengers().Resume(t.Context(), ref, storage.ResumeOptions{Takeover: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := next.PutChunk(&o.Chunks[1]); !errors.Is(err, dumpdir.ErrRevoked) {
		t.Errorf("put of the old session: %v", err)
	}
	third := challenge(t, s, o, 2)
	if err := w.PutChunk(&o.Chunks[1]); !errors.Is(err, dumpdir.ErrRevoked) {
		t.Errorf("put into a challenger that was replaced: %v", err)
	}
	d, err := s.Challengers().Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if got := third.Progress(); d.Progress() != got {
		t.Errorf("open says %+v, want %+v", d.Progress(), got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	wantChallengers(t, s, ref)
}

// testChallengerGoes: a challenger is removed, alone and with its dump.
func testChallengerGoes(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("a"), day)
	o := otherPlan(m)
	ref := Receive(t, s, m, false)
	next := challenge(t, s, o, 1)
	if err := s.Challengers().Drop(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if err := next.PutChunk(&o.Chunks[1]); !errors.Is(err, dumpdir.ErrRevoked) {
		t.Errorf("put into a dropped challenger: %v", err)
	}
	wantChallengers(t, open())
	checkOpen(t, s, ref, m)
	if err := s.Challengers().Drop(t.Context(), ref); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("drop of none: %v", err)
	}
	if err := s.Challengers().Promote(t.Context(), ref); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("promotion of none: %v", err)
	}
	if _, err := s.Challengers().Open(t.Context(), ref); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("open of none: %v", err)
	}
	next = challenge(t, s, o, 1)
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{}); !errors.Is(err, storage.ErrArriving) {
		t.Errorf("remove beside an arriving challenger: %v", err)
	}
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := next.PutChunk(&o.Chunks[1]); !errors.Is(err, dumpdir.ErrRevoked) {
		t.Errorf("put into a removed challenger: %v", err)
	}
	for _, s := range []storage.Store{s, open()} {
		wantChallengers(t, s)
		if got := list(t, s, storage.Filter{}); len(got) != 0 {
			t.Errorf("after remove: %v", refs(got))
		}
	}
}
