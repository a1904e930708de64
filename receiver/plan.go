package receiver

import (
	"context"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
)

// takePages is the part of a session in which pages come: from WELCOME to FINISH.
func (ss *session) takePages(ctx context.Context) (*protocol.Finish, error) {
	collect := protocol.CollectAll
	if ss.decision.Action == admission.ActionEssential {
		collect = protocol.CollectEssential
	}
	if err := ss.welcome(collect); err != nil {
		return nil, err
	}
	ss.view.enter(statePlanning)
	finish, err := ss.readPlan(ctx)
	if err != nil || finish != nil {
		return finish, err
	}
	ok := &protocol.PlanOK{Have: intake.Have(ss.w), Note: ss.tidings()}
	if ss.collect == protocol.CollectEssential {
		ok.Collect = protocol.CollectEssential
	}
	if err := ss.write(ok); err != nil {
		return nil, err
	}
	ss.view.enter(stateReceiving)
	return ss.readChunks(ctx)
}

// tidings is what PLANOK has to say beside its numbers.
func (ss *session) tidings() string {
	if ss.other != "" && ss.note != "" {
		return ss.other + "; " + ss.note
	}
	return ss.other + ss.note
}

// planReader takes a plan from the wire and gives it to the store, unless it is there
// already.
type planReader struct {
	ss      *session
	runs    *protocol.RunDecoder
	builder *dumpdir.PlanBuilder // nil when a plan is stored already
	spool   *spool               // then, should it turn out to be another one; else nil
	plan    dumpdir.PlanEnd
}

// planPatience is how many stall timeouts a sender may take to make its plan: it reads
// the memory map of the whole machine first.
const planPatience = 6

// readPlan takes the plan. A sender that gives up meanwhile sends FINISH, which is
// returned.
func (ss *session) readPlan(ctx context.Context) (*protocol.Finish, error) {
	r := &planReader{ss: ss, runs: protocol.NewRunDecoder(ss.hello.Params())}
	defer r.abort()
	for {
		msg, err := ss.in.nextWithin(ctx, planPatience*ss.cfg.StallTimeout)
		if err != nil {
			return nil, err
		}
		switch m := msg.(type) {
		case *protocol.Plan:
			err = r.add(ctx, m.Data)
		case *protocol.PlanEnd:
			return r.last(ctx, m)
		default:
			return asFinish(msg, nil, "PLAN")
		}
		if err != nil {
			return nil, err
		}
	}
}

// begin starts a new plan in the store, or a spool when there is one that may be the same.
func (r *planReader) begin(ctx context.Context) error {
	if r.builder != nil || r.spool != nil {
		return nil
	}
	if _, ok := r.ss.w.Plan(); ok {
		r.spool = newSpool(ctx, r.ss.cfg.Store)
		return nil
	}
	return r.build()
}

// build starts a new plan in the store. What PLANEND will say of the codec is not
// known yet, so the header names the one that the sender likes best.
func (r *planReader) build() (err error) {
	r.builder, err = r.ss.w.StartPlan(r.ss.facts())
	return err
}

func (r *planReader) add(ctx context.Context, piece []byte) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	if r.spool != nil {
		r.spool.add(piece)
	}
	return r.runs.Decode(piece, func(run protocol.Run) error {
		if r.builder == nil {
			return nil
		}
		return r.builder.Add(run.Extent)
	})
}

func (r *planReader) abort() {
	if r.builder != nil {
		r.builder.Abort()
	}
	if r.spool != nil {
		if err := r.spool.close(); err != nil {
			r.ss.log.Warn("closing a scratch file", "error", err)
		}
	}
}

// last deals with PLANEND: it finds the plan in the store, waits for room, and makes a plan
// durable that is new.
func (r *planReader) last(ctx context.Context, m *protocol.PlanEnd) (finish *protocol.Finish, err error) {
	known := false
	err = r.ss.busy(ctx, "the plan is compared", func() (err error) {
		known, err = r.choose(ctx, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	if finish, err = r.ss.makeRoom(ctx, m); err != nil || finish != nil || known {
		return finish, err
	}
	return nil, r.ss.busy(ctx, "the plan is laid out", func() error { return r.end(m) })
}

// choose checks the plan and finds out whether the store has it. If so, the session goes on with what is there.
func (r *planReader) choose(ctx context.Context, m *protocol.PlanEnd) (known bool, err error) {
	if m.Omitted {
		return false, protocol.Errorf(protocol.CodePlanMismatch, "PLANEND leaves out a plan that WELCOME did not name")
	}
	sum := r.runs.Sum()
	if err := sum.Check(m); err != nil {
		return false, err
	}
	r.ss.logWarnings(m.Warnings)
	if err := intake.CheckPlan(m, r.ss.ram); err != nil {
		return false, err
	}
	r.plan = intake.PlanEnd(m)
	if known, err = r.ss.findPlan(ctx, r.plan); known {
		p := r.ss.w.Progress()
		r.ss.log.Info("goes on", "pages", p.Present, "of", p.Planned)
	}
	return known, err
}

// end makes a plan durable that is new.
func (r *planReader) end(m *protocol.PlanEnd) error {
	if r.builder == nil {
		if err := r.rebuild(); err != nil {
			return err
		}
	}
	if err := r.builder.Finish(r.plan); err != nil {
		return err
	}
	r.ss.log.Info("plan", "pages", m.Kept, "chunks", m.Chunks, "raw_bytes", m.Kept*uint64(r.ss.hello.PageSize))
	return nil
}

// rebuild starts a new plan with the runs that came before it was known to be one. A plan of no pages has none.
func (r *planReader) rebuild() error {
	if err := r.build(); err != nil || r.spool == nil {
		return err
	}
	runs := protocol.NewRunDecoder(r.ss.hello.Params())
	return r.spool.each(func(piece []byte) error {
		return runs.Decode(piece, func(run protocol.Run) error { return r.builder.Add(run.Extent) })
	})
}

// facts is what the front of vmcore says of the machine.
func (ss *session) facts() dumpdir.Facts {
	f := intake.Facts(ss.hello, ss.begin, ss.cfg.Codec)
	f.Notes, f.RAM = ss.notes, ss.ram
	return f
}
