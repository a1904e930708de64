package dumpdir_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// acked is what a sender was told to be durable.
type acked struct {
	log   bool
	plan  bool
	seqs  map[uint64]bool
	state dumpdir.State
}

// session plays one connection of a sender: it takes the dump up where it is, sends what is
// missing, three chunks to a commit, and seals. It notes what is acknowledged, and checks that nothing is gone that was.
func session(t *testing.T, fsys dumpdir.FS, m *dumpdirtest.Machine, a *acked) error {
	t.Helper()
	w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
	if errors.Is(err, dumpdir.ErrNotExist) && !a.log && len(a.seqs) == 0 {
		w, err = dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
	}
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	if err := checkAcked(w, fsys, m, a); err != nil {
		t.Errorf("lost: %v", err)
		return err
	}
	if _, sealed := w.Result(); sealed {
		return nil
	}
	if err := w.StoreLog(bytes.NewReader(m.Log)); err != nil {
		return err
	}
	a.log = true
	if _, ok := w.Plan(); !ok {
		if err := m.SetPlan(w); err != nil {
			return err
		}
	}
	a.plan = true
	if err := sendMissing(w, m, a); err != nil {
		return err
	}
	res, err := w.Seal(t.Context(), "")
	if err != nil {
		return err
	}
	a.state = res.State
	return w.Close()
}

func sendMissing(w *dumpdir.Writer, m *dumpdirtest.Machine, a *acked) error {
	have, put := w.Have(), 0
	for i := range m.Chunks {
		if dumpdirtest.Contains(have, m.Chunks[i].Seq) {
			continue
		}
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			return err
		}
		if put++; put%3 != 0 && i < len(m.Chunks)-1 {
			continue
		}
		fresh, err := w.Commit()
		if err != nil {
			return err
		}
		for _, r := range fresh {
			for q := r.Start; q < r.End(); q++ {
				a.seqs[q] = true
			}
		}
	}
	return nil
}

// cutOffSession is a session whose deadline comes after a few chunks: it seals a partial dump, which
// the next one takes up again.
func cutOffSession(t *testing.T, fsys dumpdir.FS, m *dumpdirtest.Machine, a *acked, chunks int) error {
	t.Helper()
	w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{Reopen: true})
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	if err := checkAcked(w, fsys, m, a); err != nil {
		t.Errorf("lost: %v", err)
		return err
	}
	if res, sealed := w.Result(); sealed {
		a.state = res.State
		return nil
	}
	short := *m
	short.Chunks = m.Chunks[:min(chunks, len(m.Chunks))]
	if err := sendMissing(w, &short, a); err != nil {
		return err
	}
	res, err := w.Seal(t.Context(), "deadline")
	if err != nil {
		return err
	}
	a.state = res.State
	return w.Close()
}

func checkAcked(w *dumpdir.Writer, fsys dumpdir.FS, m *dumpdirtest.Machine, a *acked) error {
	have := w.Have()
	for q := range a.seqs {
		if !dumpdirtest.Contains(have, q) {
			return fmt.Errorf("chunk %d", q)
		}
	}
	if _, ok := w.Plan(); a.plan && !ok {
		return errors.New("plan")
	}
	d, err := dumpdir.Open(fsys, dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if a.log {
		log, err := d.OpenLog()
		if err != nil {
			return err
		}
		defer func() { _ = log.Close() }()
		b := make([]byte, len(m.Log)+1)
		if n, _ := log.Read(b); !bytes.Equal(b[:n], m.Log) {
			return fmt.Errorf("log is %q", b[:n])
		}
	}
	if len(have) == 0 {
		return nil
	}
	vm, err := d.OpenVMCore()
	if err != nil {
		return err
	}
	_, err = m.CheckPages(vm, have)
	return errors.Join(err, vm.Close())
}

// cutAt cuts the power at operation n.
func cutAt(n int) dumpdirtest.Fault {
	return func(i int, _ dumpdirtest.Op, _ string) error {
		if i >= n {
			return dumpdirtest.ErrPowerCut
		}
		return nil
	}
}

// survive cuts the power at operation n of a dump, and again at random ones while it is resumed, until
// it completes; it must equal an undisturbed one.
func survive(t *testing.T, fsys *dumpdirtest.FS, m *dumpdirtest.Machine, n int, rnd *rand.Rand) (done bool) {
	t.Helper()
	a := &acked{seqs: map[uint64]bool{}}
	fsys.SetFault(cutAt(n))
	for round := 0; ; round++ {
		err := session(t, fsys, m, a)
		if t.Failed() {
			return true
		}
		if err == nil {
			return round == 0
		}
		if !errors.Is(err, dumpdirtest.ErrPowerCut) {
			t.Errorf("round %d: %v", round, err)
			return true
		}
		fsys.Cut(rnd)
		if round < 4 {
			fsys.SetFault(cutAt(1 + rnd.IntN(150)))
		}
	}
}

// TestPowerCut cuts the power at every operation of a dump: what was acknowledged is there afterwards,
// and the resumed dump is page for page an undisturbed one.
func TestPowerCut(t *testing.T) {
	m := dumpdirtest.NewMachine(20, 150, 8)
	for n := 1; ; n++ {
		for seed := range uint64(2) {
			fsys := dumpdirtest.NewFS()
			done := survive(t, fsys, m, n, rand.New(rand.NewPCG(uint64(n), seed)))
			if t.Failed() {
				t.Fatalf("power cut at operation %d, seed %d", n, seed)
			}
			rep := verify(t, fsys, dir)
			if !rep.OK() || rep.State != dumpdir.StateComplete {
				t.Fatalf("power cut at operation %d, seed %d: %+v", n, seed, rep)
			}
			checkPages(t, fsys, m, []dumpdir.SeqRange{{Start: 0, Count: m.End.Chunks}}, 150)
			if done {
				t.Logf("a dump has %d operations", n-1)
				return
			}
		}
	}
}

// TestPowerCutControl leaves out one fsync at a time: the test above must notice each.
func TestPowerCutControl(t *testing.T) {
	m := dumpdirtest.NewMachine(20, 150, 8)
	for _, tc := range []struct {
		op   dumpdirtest.Op
		name string
	}{
		{dumpdirtest.OpSync, dumpdir.IncompleteName},
		{dumpdirtest.OpSync, dumpdir.JournalName},
		{dumpdirtest.OpSync, dumpdir.JournalName + ".tmp"},
		{dumpdirtest.OpSync, dumpdir.LogName + ".1.tmp"},
		{dumpdirtest.OpSyncDir, "d"},
	} {
		t.Run(string(tc.op)+" "+tc.name, func(t *testing.T) {
			for n := 1; n < 200; n++ {
				for seed := range uint64(20) {
					if lossWithout(t, m, tc.op, tc.name, n, rand.New(rand.NewPCG(uint64(n), seed))) {
						return
					}
				}
			}
			t.Error("nothing was lost without this sync: the test does not see it, or it is not needed")
		})
	}
}

// lossWithout cuts the power once at operation n and reports whether something acknowledged is gone.
func lossWithout(t *testing.T, m *dumpdirtest.Machine, op dumpdirtest.Op, name string, n int, rnd *rand.Rand) bool {
	t.Helper()
	fsys := dumpdirtest.NewFS()
	fsys.IgnoreSync = func(o dumpdirtest.Op, f string) bool { return o == op && f == name }
	fsys.SetFault(cutAt(n))
	a := &acked{seqs: map[uint64]bool{}}
	if err := session(t, fsys, m, a); err == nil {
		return false
	}
	fsys.Cut(rnd)
	w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
	if err != nil {
		return a.log || a.plan
	}
	defer func() { _ = w.Close() }()
	return checkAcked(w, fsys, m, a) != nil
}

// TestFaults makes every operation fail once, with an error and not with a power cut: the error
// comes out, stays, and the dump can be resumed.
func TestFaults(t *testing.T) {
	m := dumpdirtest.NewMachine(21, 100, 8)
	boom := errors.New("no space left on device")
	for n := 1; ; n++ {
		fsys := dumpdirtest.NewFS()
		fsys.SetFault(func(i int, _ dumpdirtest.Op, _ string) error {
			if i == n {
				return boom
			}
			return nil
		})
		a := &acked{seqs: map[uint64]bool{}}
		err := session(t, fsys, m, a)
		if fsys.Ops() < n {
			return
		}
		if !errors.Is(err, boom) {
			t.Fatalf("operation %d failed, the session says %v", n, err)
		}
		fsys.SetFault(nil)
		if err := session(t, fsys, m, a); err != nil {
			t.Fatalf("operation %d failed, then: %v", n, err)
		}
		wantClean(t, verify(t, fsys, dir))
	}
}

// TestPowerCutWhileSealing cuts the power at every operation of taking a partial dump up again, adding to it and
// sealing it, and once more of the round after.
func TestPowerCutWhileSealing(t *testing.T) {
	m := dumpdirtest.NewMachine(22, 100, 8)
	base := dumpdirtest.NewFS()
	w := start(t, base, dir, m)
	putAll(t, w, m.Chunks[:3])
	if _, err := w.Seal(t.Context(), "first deadline"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		rnd := rand.New(rand.NewPCG(uint64(n), 9))
		fsys := base.Clone()
		a := &acked{log: true, plan: true, seqs: map[uint64]bool{0: true, 1: true, 2: true}}
		fsys.SetFault(cutAt(n))
		err := cutOffSession(t, fsys, m, a, 6)
		if err == nil {
			t.Logf("reopening and sealing has %d operations", n-1)
			return
		}
		fsys.Cut(rnd)
		fsys.SetFault(cutAt(1 + rnd.IntN(n+20)))
		if err := cutOffSession(t, fsys, m, a, 8); err != nil {
			fsys.Cut(rnd)
		}
		fsys.SetFault(nil)
		if err := cutOffSession(t, fsys, m, a, 9); err != nil || t.Failed() {
			t.Fatalf("power cut at operation %d: %v", n, err)
		}
		wantClean(t, verify(t, fsys, dir))
		if a.state != dumpdir.StatePartial || len(a.seqs) < 3 {
			t.Fatalf("power cut at operation %d: %+v", n, a)
		}
		for q := range uint64(9) {
			a.seqs[q] = true
		}
		if err := cutOffSession(t, fsys, m, a, len(m.Chunks)); err != nil || a.state != dumpdir.StateComplete {
			t.Fatalf("power cut at operation %d, then to the end: %+v, %v", n, a.state, err)
		}
		wantClean(t, verify(t, fsys, dir))
		checkPages(t, fsys, m, []dumpdir.SeqRange{{Start: 0, Count: m.End.Chunks}}, 100)
	}
}
