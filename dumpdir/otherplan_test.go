package dumpdir_test

import (
	"bytes"
	"errors"
	"slices"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/mem"
)

const otherDir = "/next/node1/d"

// otherPlan has a dump with the plan of m, and the builder of another plan of the same crash.
func otherPlan(t *testing.T, fsys dumpdir.FS, other *dumpdirtest.Machine) (*dumpdir.Writer, *dumpdir.PlanBuilder) {
	t.Helper()
	m := dumpdirtest.NewMachine(1, 200, 16)
	w := start(t, fsys, dir, m)
	putAll(t, w, m.Chunks[:2])
	b, err := w.StartOtherPlan(other.Facts)
	if err != nil {
		t.Fatal(err)
	}
	return w, b
}

func otherMachine() *dumpdirtest.Machine { return dumpdirtest.NewMachine(2, 200, 16) }

// manyRuns gives the machine so many runs, in place of those of its chunks, that they are written in several pieces.
func manyRuns(m *dumpdirtest.Machine) *dumpdirtest.Machine {
	m.Runs = nil
	for i := range uint64(100_000) {
		m.Runs = append(m.Runs, mem.Extent{Start: mem.PFN(256 + 2*i), Count: 1})
	}
	m.Facts.MaxPFN = 300_000
	m.Facts.RAM[1].End = 300_000 << 12
	m.End.Pages, m.End.Chunks = 100_000, 400
	return m
}

func addAll(b *dumpdir.PlanBuilder, m *dumpdirtest.Machine) error {
	for _, e := range m.Runs {
		if err := b.Add(e); err != nil {
			return err
		}
	}
	return nil
}

// TestOtherPlan stores a plan that came while a writer had another one in the place that it gets afterwards, when that writer
// is gone and its dump too.
func TestOtherPlan(t *testing.T) {
	fsys, other := dumpdirtest.NewFS(), otherMachine()
	w, b := otherPlan(t, fsys, other)
	if err := addAll(b, other); err != nil {
		t.Fatal(err)
	}
	if names, err := fsys.ReadDir(dir); err != nil || slices.ContainsFunc(names, func(n string) bool { return n == "otherplan.tmp" }) {
		t.Errorf("%q, %v: the runs have a name", names, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := dumpdir.Create(fsys, otherDir, other.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = next.Close() })
	if err := next.StoreLog(bytes.NewReader(other.Log)); err != nil {
		t.Fatal(err)
	}
	if err := b.Finish(other.End); !errors.Is(err, dumpdir.ErrHavePlan) {
		t.Errorf("finished without a place of its own: %v", err)
	}
	if err := b.MoveTo(next); err != nil {
		t.Fatal(err)
	}
	if err := b.Finish(other.End); err != nil {
		t.Fatal(err)
	}
	b.Abort() // which does nothing any more
	putAll(t, next, other.Chunks)
	if res, err := next.Seal(t.Context(), ""); err != nil || res.State != dumpdir.StateComplete {
		t.Fatalf("%+v, %v", res, err)
	}
	wantClean(t, verify(t, fsys, otherDir))
}

// TestOtherPlanInPieces moves a plan of which most is written already.
func TestOtherPlanInPieces(t *testing.T) {
	fsys, other := dumpdirtest.NewFS(), manyRuns(otherMachine())
	_, b := otherPlan(t, fsys, other)
	next, err := dumpdir.Create(fsys, otherDir, other.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = next.Close() })
	if err := errors.Join(addAll(b, other), b.MoveTo(next), b.Finish(other.End), next.Close()); err != nil {
		t.Fatal(err)
	}
	if next, err = dumpdir.Resume(fsys, otherDir, dumpdir.Options{}); err != nil {
		t.Fatal(err)
	}
	if p, ok := next.Plan(); !ok || !p.Is(&other.End) || p.Runs != uint64(len(other.Runs)) {
		t.Errorf("stored as %+v", p)
	}
}

// TestOtherPlanGivenUp finds that the plan is the one that is stored.
func TestOtherPlanGivenUp(t *testing.T) {
	fsys, other := dumpdirtest.NewFS(), otherMachine()
	w, b := otherPlan(t, fsys, other)
	if err := addAll(b, other); err != nil {
		t.Fatal(err)
	}
	b.Abort()
	b.Abort()
	if err := b.MoveTo(w); err == nil {
		t.Error("a plan that was given up was moved")
	}
	m := dumpdirtest.NewMachine(1, 200, 16)
	putAll(t, w, m.Chunks[2:])
	if res, err := w.Seal(t.Context(), ""); err != nil || res.State != dumpdir.StateComplete {
		t.Fatalf("%+v, %v", res, err)
	}
	wantClean(t, verify(t, fsys, dir))
}

// TestOtherPlanOnAFullDisk: the dump that is stored goes on, and its writer has not failed.
func TestOtherPlanOnAFullDisk(t *testing.T) {
	fsys, other := dumpdirtest.NewFS(), manyRuns(otherMachine())
	w, b := otherPlan(t, fsys, other)
	fsys.SetRoom(fsys.Used() + 1000)
	if err := addAll(b, other); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want a full disk", err)
	}
	if err := b.Add(other.Runs[0]); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the error is not repeated: %v", err)
	}
	b.Abort()
	fsys.SetRoom(1 << 40)
	m := dumpdirtest.NewMachine(1, 200, 16)
	putAll(t, w, m.Chunks[2:])
	if _, err := w.Seal(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	wantClean(t, verify(t, fsys, dir))
}

// TestBadOtherPlan: runs that break the rules end the builder and nothing else.
func TestBadOtherPlan(t *testing.T) {
	fsys, other := dumpdirtest.NewFS(), otherMachine()
	w, b := otherPlan(t, fsys, other)
	if err := b.Add(other.Runs[1]); err != nil {
		t.Error(err)
	}
	if err := b.Add(other.Runs[0]); !errors.Is(err, dumpdir.ErrBadPlan) {
		t.Errorf("runs out of order: %v", err)
	}
	if err := b.MoveTo(w); !errors.Is(err, dumpdir.ErrBadPlan) {
		t.Errorf("moved: %v", err)
	}
	b.Abort()
	bad := other.Facts
	bad.PageSize = 1
	if _, err := w.StartOtherPlan(bad); !errors.Is(err, dumpdir.ErrBadPlan) {
		t.Errorf("bad facts: %v", err)
	}
	if _, err := w.Seal(t.Context(), "test"); err != nil {
		t.Error(err)
	}
}
