package receiver

import (
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
)

// sum is what the runs of the dump's plan give.
func (d *testDump) sum(tb testing.TB) protocol.PlanSum {
	tb.Helper()
	enc := protocol.NewRunEncoder(d.hello.Params(), func([]byte) error { return nil })
	for _, run := range d.runs {
		if err := enc.Add(run); err != nil {
			tb.Fatal(err)
		}
	}
	sum, err := enc.Close()
	if err != nil {
		tb.Fatal(err)
	}
	return sum
}

// omitPlan sends PLANEND alone, as a sender does whose plan WELCOME has named.
func (p *peer) omitPlan(change func(*protocol.PlanEnd)) {
	p.t.Helper()
	sum := p.dump.sum(p.t)
	end := p.dump.planEnd(&sum)
	end.Omitted = true
	if change != nil {
		change(end)
	}
	p.send(end)
}

// open sends everything up to LOGEND, and checks how many chunks WELCOME tells of and that it names the plan of named, if any.
func (r *rig) open(d *testDump, have uint64, named ...*testDump) *peer {
	r.t.Helper()
	p := r.peer("web1", d)
	p.hello()
	w := expect[*protocol.Welcome](p)
	if w.HaveChunks != have {
		r.t.Errorf("WELCOME tells of %d chunks, want %d", w.HaveChunks, have)
	}
	switch {
	case len(named) == 0 && w.Plan != nil:
		r.t.Errorf("WELCOME names plan %s, want none", w.Plan)
	case len(named) > 0 && (w.Plan == nil || *w.Plan != named[0].sum(r.t).Hash):
		r.t.Errorf("WELCOME names plan %v, want %s", w.Plan, named[0].sum(r.t).Hash)
	}
	return p
}

// begins waits for PLANOK and checks what the receiver has.
func (p *peer) begins(have uint64) {
	p.t.Helper()
	if ok := expect[*protocol.PlanOK](p); ok.Have.Len() != have {
		p.t.Errorf("the receiver has %d chunks, want %d", ok.Have.Len(), have)
	}
}

// completes sends the chunks from first on.
func (p *peer) completes(r *rig, first int) {
	p.t.Helper()
	for _, seq := range p.dump.all()[first:] {
		p.chunk(seq)
	}
	if sealed := p.finish(protocol.ReasonComplete); sealed.State != protocol.StateComplete {
		p.t.Errorf("sealed as %s", sealed.State)
	}
	r.wantDump(p.dump, dumpdir.StateComplete, false, p.dump.all()...)
}

// TestNamedPlan has a sender leave out the runs of a plan that is stored, in this process and in the next.
func TestNamedPlan(t *testing.T) {
	r := newRig(t, nil)
	d := newDump(t, 1)
	p := r.open(d, 0)
	p.sendPlan()
	p.begins(0)
	p.cutOff(r, 0, 1)
	p = r.open(d, 2, d)
	p.omitPlan(nil)
	p.begins(2)
	p.cutOff(r, 2)
	r.stop()
	r.start(nil)
	p = r.open(d, 3, d)
	p.omitPlan(nil)
	p.begins(3)
	p.completes(r, 3)
}

// TestNamedPlanIgnored has a sender send its runs although WELCOME named them.
func TestNamedPlanIgnored(t *testing.T) {
	r := newRig(t, nil)
	d := newDump(t, 1)
	r.begun(d, 0, false).cutOff(r, 0, 1)
	p := r.open(d, 2, d)
	p.sendPlan()
	p.begins(2)
	p.completes(r, 2)
}

// TestNamedPlanOfAnother names the plan of the dump to a sender whose own is that of the challenger.
func TestNamedPlanOfAnother(t *testing.T) {
	r := newRig(t, nil)
	first, other := newDump(t, 1), atLevel(t, 1, 1)
	r.begun(first, 0, false).cutOff(r, 0, 1, 2)
	r.begun(other, 0, true).cutOff(r, 0)
	p := r.open(other, 3, first)
	p.sendPlan()
	p.begins(1)
	p.cutOff(r, upTo(5)[1:]...)
	p = r.open(other, 5, other) // it is ahead now
	p.omitPlan(nil)
	p.begins(5)
	p.completes(r, 5)
}

// TestHalfAHash has a dump of an older program, whose journal has 64 bits of the plan's hash.
func TestHalfAHash(t *testing.T) {
	r := newRig(t, nil)
	d := newDump(t, 1)
	r.storeHalf(d)
	p := r.open(d, 0)
	p.sendPlan()
	p.begins(0)
	p.cutOff(r, 0, 1)
	p = r.open(d, 2)
	p.sendPlan()
	p.begins(2)
	p.completes(r, 2)
}

// storeHalf stores a dump without chunks whose journal has half of the plan's hash.
func (r *rig) storeHalf(d *testDump) {
	r.t.Helper()
	w, err := r.store.Create(r.t.Context(), dumpdir.Meta{ID: d.hello.DumpID, Host: "web1"})
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := w.StartPlan(dumpdir.Facts{
		PageSize: testPage, MaxPFN: d.hello.MaxPFN, DumpLevel: d.hello.Level, Codecs: dumpdir.PageSnappy, Notes: d.notes, RAM: d.ram,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, run := range d.runs {
		if err := b.Add(run.Extent); err != nil {
			r.t.Fatal(err)
		}
	}
	sum := d.sum(r.t)
	end := intake.PlanEnd(d.planEnd(&sum))
	clear(end.Hash[8:])
	if err := b.Finish(end); err != nil {
		r.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// TestOmittedPlanRefused has senders leave out what the receiver does not have.
func TestOmittedPlanRefused(t *testing.T) {
	for _, tc := range []struct {
		name   string
		stored bool
		send   func(p *peer)
	}{
		{"nothing is stored", false, func(p *peer) { p.omitPlan(nil) }},
		{"another plan", true, func(p *peer) { p.omitPlan(func(m *protocol.PlanEnd) { m.Hash[0]++ }) }},
		{"a plan with the same first half of the hash", true, func(p *peer) { p.omitPlan(func(m *protocol.PlanEnd) { m.Hash[15]++ }) }},
		{"other numbers", true, func(p *peer) {
			p.omitPlan(func(m *protocol.PlanEnd) { m.Kept--; m.Tiers[0].Pages-- })
		}},
		{"runs beside it", true, func(p *peer) {
			enc := protocol.NewRunEncoder(p.dump.hello.Params(), func(piece []byte) error { return p.wire.Write(&protocol.Plan{Data: piece}) })
			if err := enc.Add(p.dump.runs[0]); err != nil {
				p.t.Fatal(err)
			}
			if _, err := enc.Close(); err != nil {
				p.t.Fatal(err)
			}
			p.omitPlan(nil)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, nil)
			d := newDump(t, 1)
			if tc.stored {
				r.begun(d, 0, false).cutOff(r, 0)
			}
			p := r.peer("web1", d)
			p.hello()
			expect[*protocol.Welcome](p)
			tc.send(p)
			p.refused(protocol.CodePlanMismatch)
			p.gone(r)
			if tc.stored {
				p = r.open(d, 1, d)
				p.omitPlan(nil)
				p.begins(1)
				p.completes(r, 1)
			}
		})
	}
}
