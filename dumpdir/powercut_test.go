package dumpdir_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/internal/race"
)

// acked is what a sender was told to be durable.
type acked struct {
	log   bool
	plan  bool
	seqs  map[uint64]bool
	state dumpdir.State
	early bool // the sender goes before the seal
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
	a.told(w)
	if res, sealed := w.Result(); sealed {
		a.state = res.State
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
	if a.early {
		if _, ok, err := w.Finish(); err != nil || !ok {
			return errors.Join(err, w.Close())
		}
	}
	res, err := w.Seal(t.Context(), "")
	if err != nil {
		return err
	}
	a.state = res.State
	return w.Close()
}

// told notes what a sender that comes back is told to be here: it never sends that again.
func (a *acked) told(w *dumpdir.Writer) {
	_, ok := w.Plan()
	a.plan = a.plan || ok
	for _, r := range w.Have() {
		for q := r.First; q <= r.Last; q++ {
			a.seqs[q] = true
		}
	}
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
			for q := r.First; q <= r.Last; q++ {
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
	a.told(w)
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
	vm, err := dumpdirtest.OpenVMCore(fsys, d)
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

// errKilled is what every operation of a process returns that was killed: the power stays on.
var errKilled = errors.New("killed")

// killAt kills the process at operation n.
func killAt(n int) dumpdirtest.Fault {
	return func(i int, _ dumpdirtest.Op, _ string) error {
		if i >= n {
			return errKilled
		}
		return nil
	}
}

// failAt makes operation n fail, and nothing else.
func failAt(n int) dumpdirtest.Fault {
	return func(i int, _ dumpdirtest.Op, _ string) error {
		if i == n {
			return errKilled
		}
		return nil
	}
}

// TestPowerCutAfterKill kills the process at every operation of a dump, and cuts the power when the next one has taken the
// dump up and told its sender what is here: the process that wrote it did not live to see it synced.
func TestPowerCutAfterKill(t *testing.T) { cutAfter(t, killAt) }

// TestPowerCutAfterFailure does the same after an operation that failed, such as a sync: what it was to make durable never
// will be by a later sync.
func TestPowerCutAfterFailure(t *testing.T) { cutAfter(t, failAt) }

func cutAfter(t *testing.T, fault func(n int) dumpdirtest.Fault) {
	t.Helper()
	m := dumpdirtest.NewMachine(20, 100, 8)
	for n := 1; ; n += race.Stride(31) {
		killed := dumpdirtest.NewFS()
		before := &acked{seqs: map[uint64]bool{}}
		killed.SetFault(fault(n))
		err := session(t, killed, m, before)
		if err == nil {
			return
		}
		if !errors.Is(err, errKilled) {
			t.Fatalf("killed at operation %d: %v", n, err)
		}
		killed.SetFault(nil)
		w, err := dumpdir.Resume(killed, dir, dumpdir.Options{})
		if errors.Is(err, dumpdir.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatalf("killed at operation %d: %v", n, err)
		}
		before.told(w)
		for seed := range uint64(6) {
			fsys := killed.CloneCut(rand.New(rand.NewPCG(uint64(n), seed)))
			after, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
			if err == nil {
				err = errors.Join(checkAcked(after, fsys, m, before), after.Close())
			}
			if err != nil {
				t.Fatalf("killed at operation %d, power cut in the session after, seed %d: %v", n, seed, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPowerCutInRecovery cuts the power at operations all over a dump, and then at every one of the session that takes it
// up again.
func TestPowerCutInRecovery(t *testing.T) {
	m := dumpdirtest.NewMachine(23, 60, 8)
	for n := 5; ; n += 23 {
		first := dumpdirtest.NewFS()
		before := &acked{seqs: map[uint64]bool{}}
		first.SetFault(cutAt(n))
		if session(t, first, m, before) == nil {
			return
		}
		for second := 1; ; second += race.Stride(31) {
			rnd := rand.New(rand.NewPCG(uint64(n), uint64(second)))
			fsys := first.CloneCut(rnd)
			a := &acked{log: before.log, plan: before.plan, seqs: maps.Clone(before.seqs)}
			fsys.SetFault(cutAt(second))
			err := session(t, fsys, m, a)
			if err == nil {
				break
			}
			fsys.Cut(rnd)
			if err := session(t, fsys, m, a); err != nil || t.Failed() {
				t.Fatalf("power cut at operation %d, and at %d of the next session: %v", n, second, err)
			}
			fsys.Cut(rnd)
			wantClean(t, verify(t, fsys, dir))
			checkPages(t, fsys, m, []chunk.SeqRange{{Last: m.End.Chunks - 1}}, 60)
		}
	}
}

// survive cuts the power at operation n of a dump, and again at random ones while it is resumed, until
// it completes; it must equal an undisturbed one.
func survive(t *testing.T, fsys *dumpdirtest.FS, m *dumpdirtest.Machine, n int, rnd *rand.Rand) (done bool) {
	t.Helper()
	a := &acked{seqs: map[uint64]bool{}, early: n%2 == 0}
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
	for n := 1; ; n += race.Stride(53) {
		for seed := range uint64(2) {
			fsys := dumpdirtest.NewFS()
			done := survive(t, fsys, m, n, rand.New(rand.NewPCG(uint64(n), seed)))
			if t.Failed() {
				t.Fatalf("power cut at operation %d, seed %d", n, seed)
			}
			fsys.Cut(rand.New(rand.NewPCG(uint64(n), seed+100))) // the seal was acknowledged
			rep := verify(t, fsys, dir)
			if !rep.OK() || rep.State != dumpdir.StateComplete {
				t.Fatalf("power cut at operation %d, seed %d: %+v", n, seed, rep)
			}
			checkPages(t, fsys, m, []chunk.SeqRange{{Last: m.End.Chunks - 1}}, 150)
			if done {
				t.Logf("a dump has less than %d operations", n)
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
		{dumpdirtest.OpSync, dumpdir.ManifestName + ".tmp"},
		{dumpdirtest.OpSync, dumpdir.SumsName + ".tmp"},
		{dumpdirtest.OpSyncDir, "d"},
	} {
		t.Run(string(tc.op)+" "+tc.name, func(t *testing.T) {
			for n := range 200 { // 0: after the seal
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

// lossWithout cuts the power once at operation n, or with 0 when all is done, and reports whether something acknowledged is gone.
func lossWithout(t *testing.T, m *dumpdirtest.Machine, op dumpdirtest.Op, name string, n int, rnd *rand.Rand) bool {
	t.Helper()
	fsys := dumpdirtest.NewFS()
	fsys.IgnoreSync = func(o dumpdirtest.Op, f string) bool { return o == op && f == name }
	if n > 0 {
		fsys.SetFault(cutAt(n))
	}
	a := &acked{seqs: map[uint64]bool{}}
	if err := session(t, fsys, m, a); err == nil {
		fsys.Cut(rnd) // the seal was acknowledged
		return !isClean(t, fsys)
	}
	fsys.Cut(rnd)
	w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
	if err != nil {
		return a.log || a.plan
	}
	defer func() { _ = w.Close() }()
	return checkAcked(w, fsys, m, a) != nil
}

// isClean reports whether a complete dump is there and undamaged.
func isClean(t *testing.T, fsys dumpdir.FS) bool {
	t.Helper()
	d, err := dumpdir.Open(fsys, dir)
	if err != nil {
		return false
	}
	defer func() { _ = d.Close() }()
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	return err == nil && rep.OK() && rep.State == dumpdir.StateComplete
}

// TestFaults makes every operation fail once, with an error and not with a power cut: the error
// comes out, stays, and the dump can be resumed.
func TestFaults(t *testing.T) {
	m := dumpdirtest.NewMachine(21, 100, 8)
	boom := errors.New("no space left on device")
	for n := 1; ; n += race.Stride(31) {
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
	for n := 1; ; n += race.Stride(31) {
		rnd := rand.New(rand.NewPCG(uint64(n), 9))
		fsys := base.Clone()
		a := &acked{log: true, plan: true, seqs: map[uint64]bool{0: true, 1: true, 2: true}}
		fsys.SetFault(cutAt(n))
		err := cutOffSession(t, fsys, m, a, 6)
		if err == nil {
			t.Logf("reopening and sealing has less than %d operations", n)
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
		checkPages(t, fsys, m, []chunk.SeqRange{{Last: m.End.Chunks - 1}}, 100)
	}
}
