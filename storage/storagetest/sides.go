package storagetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/storage"
)

func pin(ctx context.Context, s storage.Store, ref storage.Ref, reason string) error {
	return s.SaveSide(ctx, ref, dumpdir.NewPin(time.Now(), reason), nil)
}

func wantPinned(t *testing.T, s storage.Store, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), refs(list(t, s, storage.Filter{Pinned: true}))); diff != "" {
		t.Errorf("pinned (-want +got):\n%s", diff)
	}
}

// testKept: files beside an arriving and a sealed dump are kept and counted.
func testKept(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	w := begin(t, s, machine("node1", id("a"), day))
	defer func() { _ = w.Close() }()
	for _, step := range []func() error{
		func() error { return w.Keep("kexec-dmesg.log", strings.NewReader("the capture kernel")) },
		func() error { _, err := w.Seal(t.Context(), "cut"); return err },
		func() error { return w.Keep("README.txt", strings.NewReader("saved")) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	want := uint64(len("the capture kernel") + len("saved"))
	for _, s := range []storage.Store{s, open()} {
		list, err := s.List(t.Context(), storage.Filter{})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d dumps, %v", len(list), err)
		}
		m := list[0].Manifest.Bytes
		if e := list[0]; e.KeptBytes != want || e.Bytes() != want+uint64(max(0, m.VMCore+m.Log)) {
			t.Errorf("%d bytes kept of %d, want %d", e.KeptBytes, e.Bytes(), want)
		}
	}
}

// testPin: an arriving and a sealed dump can be pinned.
func testPin(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	sealed := Receive(t, s, machine("node1", id("a"), day), false)
	m := machine("node1", id("b"), day)
	arriving := storage.Ref{Host: "node1", ID: id("b")}
	w := begin(t, s, m)
	other := open() // as another process
	for _, ref := range []storage.Ref{sealed, arriving} {
		if err := pin(t.Context(), other, ref, "ticket\x1b 7"); err != nil {
			t.Fatal(err)
		}
		for _, s := range []storage.Store{s, other} {
			if err := s.Remove(t.Context(), ref, storage.RemoveOptions{Force: true}); !errors.Is(err, storage.ErrPinned) {
				t.Errorf("remove of a pinned dump: %v", err)
			}
		}
	}
	if err := w.PutChunk(&m.Chunks[0]); err != nil {
		t.Errorf("the pin got in the way of the writer: %v", err)
	}
	if _, err := w.Seal(t.Context(), "cut"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reindex(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range []storage.Store{s, open()} {
		wantPinned(t, s, sealed.String(), arriving.String())
		e, err := s.Find(t.Context(), sealed.String())
		if err != nil || e.Pin == nil || e.Pin.Reason != "ticket? 7" || time.Since(e.Pin.Time) > time.Hour {
			t.Errorf("found %+v, %v", e.Pin, err)
		}
		checkVerifies(t, s, sealed)
	}
	for range 2 {
		if err := s.RemoveSide(t.Context(), sealed, dumpdir.PinName); err != nil {
			t.Fatal(err)
		}
	}
	wantPinned(t, s, arriving.String())
	if err := s.Remove(t.Context(), sealed, storage.RemoveOptions{}); err != nil {
		t.Errorf("remove: %v", err)
	}
	for _, f := range []func(context.Context, storage.Ref) error{
		func(ctx context.Context, ref storage.Ref) error { return s.RemoveSide(ctx, ref, dumpdir.PinName) },
		func(ctx context.Context, ref storage.Ref) error { return pin(ctx, s, ref, "") },
	} {
		if err := f(t.Context(), sealed); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("pin of nothing: %v", err)
		}
	}
}

func checkVerifies(t *testing.T, s storage.Store, ref storage.Ref) {
	t.Helper()
	d, err := s.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{}); err != nil || !rep.OK() {
		t.Errorf("verify: %+v, %v", rep, err)
	}
}

// testPinPromoted: the dump of another plan takes the place of a pinned dump.
func testPinPromoted(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("a"), day)
	ref := Receive(t, s, m, true)
	if err := pin(t.Context(), s, ref, "keep"); err != nil {
		t.Fatal(err)
	}
	if err := challenge(t, s, otherPlan(m), 2).Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Challengers().Promote(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	wantPinned(t, s, ref.String())
}

func manifest(t *testing.T, s storage.Store, ref storage.Ref) *dumpdir.Manifest {
	t.Helper()
	d, err := s.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	return d.Manifest()
}

// testVerification: damage and its repair are recorded, also for a dump whose sender came back.
func testVerification(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("a"), day)
	ref := Receive(t, s, m, true)
	as := manifest(t, s, ref)
	pfn, chunk := mem.PFN(5), uint64(0)
	bad := &dumpdir.Report{Damaged: 2, Findings: []dumpdir.Finding{{File: "vmcore", Offset: 7, Where: "page", PFN: &pfn, Chunk: &chunk, Text: "CRC"}}}
	save := func(rep *dumpdir.Report) error {
		return open().SaveSide(t.Context(), ref, dumpdir.NewVerification(as, rep, time.Now()), as)
	}
	for _, tc := range []struct {
		rep         *dumpdir.Report
		state, find dumpdir.State
	}{
		{bad, dumpdir.StateDamaged, dumpdir.StatePartial},
		{&dumpdir.Report{}, dumpdir.StatePartial, dumpdir.StateDamaged},
		{bad, dumpdir.StateDamaged, dumpdir.StatePartial},
	} {
		if err := save(tc.rep); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Reindex(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := list(t, s, storage.Filter{State: []dumpdir.State{tc.state}})
		if len(got) != 1 || got[0].Verification == nil || len(list(t, s, storage.Filter{State: []dumpdir.State{tc.find}})) != 0 {
			t.Fatalf("listed as %+v", got)
		}
		if diff := cmp.Diff(tc.rep.Findings, got[0].Verification.Findings); diff != "" || got[0].Verification.Damaged != tc.rep.Damaged {
			t.Errorf("recorded (-want +got):\n%s", diff)
		}
	}
	w, err := s.Resume(t.Context(), ref, storage.ResumeOptions{Reopen: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := save(bad); !errors.Is(err, storage.ErrChanged) {
		t.Errorf("record of a dump that arrives: %v", err)
	}
	if err := w.PutChunk(&m.Chunks[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Seal(t.Context(), "cut again"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := save(bad); !errors.Is(err, storage.ErrChanged) {
		t.Errorf("record of an earlier seal: %v", err)
	}
	if got := list(t, s, storage.Filter{}); got[0].Verification != nil || got[0].State() != dumpdir.StatePartial {
		t.Errorf("listed as %+v", got)
	}
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := save(bad); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("record of a dump that is gone: %v", err)
	}
}

// testRemoveChanged: a dump that has changed since the decision is not removed.
func testRemoveChanged(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("a"), day)
	ref := Receive(t, s, m, true)
	as := list(t, s, storage.Filter{})[0].Manifest
	w, err := s.Resume(t.Context(), ref, storage.ResumeOptions{Reopen: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{As: &as}); !errors.Is(err, storage.ErrArriving) {
		t.Errorf("remove while it arrives: %v", err)
	}
	if err := w.PutChunk(&m.Chunks[1]); err != nil {
		t.Errorf("its writer was disturbed: %v", err)
	}
	if _, err := w.Seal(t.Context(), "cut again"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{As: &as}); !errors.Is(err, storage.ErrChanged) {
		t.Errorf("remove after it was sealed anew: %v", err)
	}
	as = list(t, s, storage.Filter{})[0].Manifest
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{As: &as}); err != nil {
		t.Errorf("remove: %v", err)
	}
}
