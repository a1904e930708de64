package receiver

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/storage"
)

// only returns the directory of the only dump, its state and its files.
func (r *rig) only() (dir string, state dumpdir.State, files map[string]string) {
	r.t.Helper()
	all, err := r.store.List(r.t.Context(), storage.Filter{})
	if err != nil || len(all) != 1 {
		r.t.Fatalf("%d dumps: %v", len(all), err)
	}
	return all[0].Path, all[0].State(), r.filesOf(all[0].Path)
}

func (r *rig) filesOf(dir string) map[string]string {
	r.t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	files := map[string]string{}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name.Name()))
		if err != nil {
			r.t.Fatal(err)
		}
		files[name.Name()] = string(b)
	}
	return files
}

// lostSeal makes a complete, pinned dump whose journal loses its end.
func lostSeal(t *testing.T, seed uint64) (r *rig, d *testDump, ref storage.Ref) {
	t.Helper()
	r = newRig(t, nil)
	d = newDump(t, seed)
	if got := r.peer("web1", d).whole(); got.State != protocol.StateComplete {
		t.Fatalf("sealed %v", got.State)
	}
	dir, _, _ := r.only()
	all, err := r.store.List(t.Context(), storage.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	ref = all[0].Ref
	if err := r.store.SaveSide(t.Context(), ref, dumpdir.NewPin(time.Now(), "evidence"), nil); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(dir, dumpdir.JournalName)
	info, err := os.Stat(journal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(journal, info.Size()*3/4); err != nil {
		t.Fatal(err)
	}
	return r, d, ref
}

// TestExpiryLeavesASealedDumpThatLostItsSeal lets the time be over for which it would wait for its sender, in the process that
// stored it and in the next one, which seals another dump then.
func TestExpiryLeavesASealedDumpThatLostItsSeal(t *testing.T) {
	r, _, ref := lostSeal(t, 91)
	dir, state, before := r.only()
	if state != dumpdir.StateDamaged {
		t.Errorf("state %s", state)
	}
	r.server.sealExpired(t.Context(), ref)
	p := r.begun(newDump(t, 93), 0, false)
	p.cutOff(r, 0)
	r.stop()
	r.start(func(c *Config) { c.ResumeGrace = time.Nanosecond })
	r.eventually("the other dump is sealed", func() bool {
		sealed, err := r.store.List(t.Context(), storage.Filter{State: []dumpdir.State{dumpdir.StatePartial}})
		return err == nil && len(sealed) == 1
	})
	left, err := r.server.unsealed(t.Context())
	if err != nil || len(left) != 0 {
		t.Errorf("dumps that wait for their senders: %v, %v", left, err)
	}
	e, err := r.store.Find(t.Context(), ref.String())
	if err != nil || e.Path != dir || e.State() != dumpdir.StateDamaged {
		t.Errorf("the dump is %s in %s: %v", e.State(), e.Path, err)
	}
	if !maps.Equal(r.filesOf(dir), before) {
		t.Error("the dump has changed")
	}
}

// TestSenderOfASealedDumpThatLostItsSeal comes back, and what it has is stored beside the dump: in its place when it is
// whole, with the old one put aside as it was.
func TestSenderOfASealedDumpThatLostItsSeal(t *testing.T) {
	r, d, ref := lostSeal(t, 92)
	dir, _, before := r.only()

	// A part of it is no reason to touch the dump.
	p := r.peer("web1", d)
	p.hello()
	if have := p.plan(); have.Len() != 0 {
		t.Errorf("the receiver has %d chunks of a new dump", have.Len())
	}
	p.cutOff(r, 0)
	r.nobodyComes()
	r.eventually("the part beside is sealed", func() bool {
		next, err := r.store.Challengers().Open(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = next.Close() }()
		return next.State() == dumpdir.StatePartial
	})
	if _, state, after := r.only(); state != dumpdir.StateDamaged || !maps.Equal(after, before) {
		t.Errorf("the dump is %s, changed: %t", state, !maps.Equal(after, before))
	}

	p = r.peer("web1", d)
	p.hello()
	if have := p.plan(); have.Len() != 1 {
		t.Errorf("the receiver has %d chunks of the part", have.Len())
	}
	for _, seq := range d.all()[1:] {
		p.chunk(seq)
	}
	if got := p.finish(protocol.ReasonComplete); got.State != protocol.StateComplete {
		t.Errorf("sealed %v", got.State)
	}
	if now, state, _ := r.only(); now != dir || state != dumpdir.StateComplete {
		t.Errorf("%s is %s", now, state)
	}
	aside, err := filepath.Glob(filepath.Join(r.data, "replaced", "*"))
	if err != nil || len(aside) != 1 || !maps.Equal(r.filesOf(aside[0]), before) {
		t.Errorf("put aside: %v, %v", aside, err)
	}
	if err := r.store.Remove(t.Context(), ref, storage.RemoveOptions{}); err == nil {
		t.Error("the pin went")
	}
}
