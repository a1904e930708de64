package dumpdir_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/internal/race"
)

// TestFullDisk fills the disk at many points of a dump, to the last byte: what was acknowledged is sealed
// as a valid partial dump all the same.
func TestFullDisk(t *testing.T) {
	t.Run("low RAM", func(t *testing.T) { fullDisk(t, dumpdirtest.NewMachine(60, 300, 8)) })
	// The bitmaps are a hole between RAM below 1 MiB and RAM at 4 GiB.
	t.Run("high RAM", func(t *testing.T) { fullDisk(t, dumpdirtest.NewMachineAt(60, 300, 8, 1<<20)) })
}

func fullDisk(t *testing.T, m *dumpdirtest.Machine) {
	t.Helper()
	roomy := dumpdirtest.NewFS()
	complete(t, roomy, dir, m)
	sealed := 0
	step := int64(5003 * race.Stride(29))
	for room := int64(20 << 10); room < roomy.Used()+400<<10; room += step {
		fsys := dumpdirtest.NewFS()
		fsys.SetRoom(room)
		a := &acked{seqs: map[uint64]bool{}}
		w, err := fillDisk(t, fsys, m, a)
		if err == nil {
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("room for %d bytes: %v", room, err)
		}
		fsys.SetRoom(fsys.Used()) // others take the rest
		if !a.plan {
			continue
		}
		if w, err = w.Takeover(); err != nil {
			t.Fatalf("room for %d bytes: taking over: %v", room, err)
		}
		if err := checkAcked(w, fsys, m, a); err != nil {
			t.Fatalf("room for %d bytes: lost: %v", room, err)
		}
		res, err := w.Seal(t.Context(), "disk full")
		if err != nil {
			t.Fatalf("room for %d bytes: seal: %v", room, err)
		}
		wantClean(t, verify(t, fsys, dir))
		if res.State == dumpdir.StatePartial {
			sealed++
		}
	}
	if sealed*race.Stride(29) < 20 {
		t.Errorf("only %d partial dumps: the disk was never full at the right time", sealed)
	}
}

// TestFullDiskMidBatch fills the disk between two commits: the chunk that does not fit is refused, and those before
// it are committed.
func TestFullDiskMidBatch(t *testing.T) {
	m := dumpdirtest.NewMachine(60, 300, 8)
	roomy := dumpdirtest.NewFS()
	complete(t, roomy, dir, m)
	refused := map[int]bool{}
	step := int64(5003 * race.Stride(17))
	for room := roomy.Used() - 20<<10; room < roomy.Used()+400<<10; room += step {
		fsys := dumpdirtest.NewFS()
		w, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
		if err == nil {
			err = m.SetPlan(w)
		}
		if err != nil {
			t.Fatal(err)
		}
		fsys.SetRoom(max(room, fsys.Used()))
		put := 0
		for ; put < len(m.Chunks) && err == nil; put++ {
			err = w.PutChunk(&m.Chunks[put])
		}
		if err != nil {
			put--
			refused[put] = true
		}
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("room for %d bytes: %v", room, err)
		}
		if _, err := w.Commit(); err != nil {
			t.Fatalf("room for %d bytes, %d chunks put: commit: %v", room, put, err)
		}
		if n := w.Progress().Chunks; n != uint64(put) {
			t.Errorf("room for %d bytes: %d chunks are durable, %d were put", room, n, put)
		}
		if _, err := w.Seal(t.Context(), "disk full"); err != nil {
			t.Fatalf("room for %d bytes: seal: %v", room, err)
		}
		wantClean(t, verify(t, fsys, dir))
	}
	if len(refused) < 3 {
		t.Errorf("chunks %v were refused: the disk was not full at enough of them", refused)
	}
}

// fillDisk sends until the dump is complete or the disk is full.
func fillDisk(t *testing.T, fsys dumpdir.FS, m *dumpdirtest.Machine, a *acked) (*dumpdir.Writer, error) {
	t.Helper()
	w, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		return nil, err
	}
	if err := m.SetPlan(w); err != nil {
		return w, err
	}
	a.plan = true
	if err := sendMissing(w, m, a); err != nil {
		return w, err
	}
	_, err = w.Seal(t.Context(), "")
	return w, err
}
