package dumpdir_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// finished reports whether the dump in dir is complete and not sealed.
func finished(t *testing.T, fsys dumpdir.FS) bool {
	t.Helper()
	done, err := openDump(t, fsys, dir).Finished()
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// vmcoreBytes returns the contents of the vmcore in dir.
func vmcoreBytes(t *testing.T, fsys dumpdir.FS) []byte {
	t.Helper()
	vm, err := dumpdirtest.OpenVMCore(fsys, openDump(t, fsys, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = vm.Close() }()
	b, err := io.ReadAll(io.NewSectionReader(vm, 0, math.MaxInt64))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFinish(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(31, 100, 16)
	w := start(t, fsys, dir, m)
	last := len(m.Chunks) - 1
	putAll(t, w, m.Chunks[:last])
	if _, ok, err := w.Finish(); ok || err != nil || finished(t, fsys) {
		t.Fatalf("with missing pages: %v, %v", ok, err)
	}
	if err := w.PutChunk(&m.Chunks[last]); err != nil { // not committed
		t.Fatal(err)
	}
	res, ok, err := w.Finish()
	if !ok || err != nil || res.State != dumpdir.StateComplete || res.SHA256 != "" || res.Progress.Missing() != 0 {
		t.Fatalf("finish: %+v, %v, %v", res, ok, err)
	}
	if err := w.PutChunk(&m.Chunks[0]); !errors.Is(err, dumpdir.ErrSealed) {
		t.Errorf("a chunk for a finished dump: %v", err)
	}
	if !finished(t, fsys) {
		t.Error("a finished dump does not look so")
	}
	rep := verify(t, fsys, dir)
	if !rep.OK() || rep.State != dumpdir.StateArriving {
		t.Errorf("verification of a finished dump: %+v", rep)
	}
	early := vmcoreBytes(t, fsys)
	// That a sender says meanwhile that its file lacks something changes nothing: another one was told that the dump is complete.
	res, err = w.SealPartial(t.Context(), "unreadable")
	if err != nil || res.State != dumpdir.StateComplete || res.SHA256 == "" || res.Reason != "" {
		t.Fatalf("seal: %+v, %v", res, err)
	}
	wantClean(t, verify(t, fsys, dir))
	if !bytes.Equal(vmcoreBytes(t, fsys), early) {
		t.Error("the seal changed the vmcore of a finished dump")
	}
	if finished(t, fsys) {
		t.Error("a sealed dump looks unsealed")
	}
}

// TestPowerCutAfterFinish: whoever finds a dump after a power cut sees that it was finished, and its seal is that of an undisturbed one.
func TestPowerCutAfterFinish(t *testing.T) {
	m := dumpdirtest.NewMachine(32, 100, 16)
	plain := dumpdirtest.NewFS()
	want := complete(t, plain, dir, m)
	for seed := range uint64(8) {
		fsys := dumpdirtest.NewFS()
		w := start(t, fsys, dir, m)
		putAll(t, w, m.Chunks)
		if _, ok, err := w.Finish(); !ok || err != nil {
			t.Fatal(ok, err)
		}
		fsys.Cut(rand.New(rand.NewPCG(32, seed)))
		if !finished(t, fsys) {
			t.Fatalf("seed %d: the dump does not look finished", seed)
		}
		wantChunks(t, fsys, m)
		w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
		if err != nil {
			t.Fatal(err)
		}
		res, err := w.Seal(t.Context(), dumpdir.ReasonGone)
		if err != nil || res.State != dumpdir.StateComplete || res.SHA256 != want.SHA256 {
			t.Fatalf("seed %d: sealed as %+v, %v, want SHA-256 %s", seed, res, err, want.SHA256)
		}
		wantClean(t, verify(t, fsys, dir))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func wantChunks(t *testing.T, fsys dumpdir.FS, m *dumpdirtest.Machine) {
	t.Helper()
	checkPages(t, fsys, m, []chunk.SeqRange{{Last: m.End.Chunks - 1}}, 100)
}

// TestFinishWithoutPages: a dump without a plan, and a sealed one, cannot be finished.
func TestFinishWithoutPages(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(33, 100, 16)
	w, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	if _, ok, err := w.Finish(); ok || err != nil {
		t.Errorf("without a plan: %v, %v", ok, err)
	}
	if _, err := w.Seal(t.Context(), "log only"); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := w.Finish(); ok || !errors.Is(err, dumpdir.ErrSealed) {
		t.Errorf("a sealed dump: %v, %v", ok, err)
	}
}

// TestFinishFails has each operation of Finish fail: the writer fails, and the dump goes on where it was.
func TestFinishFails(t *testing.T) {
	m := dumpdirtest.NewMachine(34, 60, 8)
	for n := 1; ; n++ {
		fsys := dumpdirtest.NewFS()
		w := start(t, fsys, dir, m)
		for i := range m.Chunks {
			if err := w.PutChunk(&m.Chunks[i]); err != nil {
				t.Fatal(err)
			}
		}
		fsys.SetFault(failAt(n))
		_, ok, err := w.Finish()
		if ok {
			return
		}
		if !errors.Is(err, errKilled) {
			t.Fatalf("operation %d: %v, %v", n, ok, err)
		}
		fsys.SetFault(nil)
		if w, err = w.Takeover(); err != nil {
			t.Fatal(err)
		}
		have := w.Have()
		for i := range m.Chunks {
			if !dumpdirtest.Contains(have, m.Chunks[i].Seq) {
				putAll(t, w, m.Chunks[i:i+1])
			}
		}
		if res, err := w.Seal(t.Context(), ""); err != nil || res.State != dumpdir.StateComplete {
			t.Fatalf("operation %d failed, then the seal: %+v, %v", n, res, err)
		}
		wantClean(t, verify(t, fsys, dir))
	}
}
