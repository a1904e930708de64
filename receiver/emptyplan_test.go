package receiver

import (
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/storage"
)

// A plan without pages for a machine with RAM is refused, known to the store or not: nothing of it may
// count as a complete dump. Its log stays.
func TestPlanWithoutPages(t *testing.T) {
	r := newRig(t, nil)
	d0 := newDump(t, 1)
	d0.planned(t, nil)
	for range 2 { // the second finds what the first has left
		p := r.peer("host-1", d0)
		p.hello()
		expect[*protocol.Welcome](p)
		p.sendPlan()
		p.refused(protocol.CodePlanMismatch)
	}
	entries, err := r.store.List(t.Context(), storage.Filter{})
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d dumps, %v", len(entries), err)
	}
	d, err := r.store.Open(t.Context(), entries[0].Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if m := d.Manifest(); m.State == dumpdir.StateComplete || m.Bytes.Log != int64(len(d0.log)) {
		t.Errorf("state %s, a log of %d bytes", m.State, m.Bytes.Log)
	}
	// The same machine may come back with pages.
	whole := newDump(t, 1)
	if sealed := r.peer("host-1", whole).whole(); sealed.State != protocol.StateComplete || sealed.Pages != 1050 {
		t.Errorf("with pages: %+v", sealed)
	}
}

// A machine that tells of no RAM has nothing to send.
func TestPlanWithoutPagesOrRAM(t *testing.T) {
	r := newRig(t, nil)
	d := newDump(t, 1)
	d.planned(t, nil)
	d.ram = nil
	p := r.peer("host-1", d)
	p.hello()
	p.plan()
	if sealed := p.finish(protocol.ReasonComplete); sealed.Pages != 0 {
		t.Errorf("%+v", sealed)
	}
}
