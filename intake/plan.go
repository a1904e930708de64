package intake

import (
	"context"
	"errors"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
)

// planReader takes a plan from the wire and gives it to the writer, unless it has it already.
type planReader struct {
	s       *Session
	runs    *protocol.RunDecoder
	builder *dumpdir.PlanBuilder // nil when a plan is stored already
	spool   Spool                // then, should it turn out to be another one; else nil
	plan    dumpdir.PlanEnd
}

// planPatience is how many stall timeouts a sender may take to make its plan: it reads
// the memory map of the whole machine first.
const planPatience = 6

// readPlan takes the plan, and has the policy complete ok. A sender that gives up meanwhile sends FINISH, which is
// returned.
func (s *Session) readPlan(ctx context.Context, ok *protocol.PlanOK) (*protocol.Finish, error) {
	r := &planReader{s: s, runs: protocol.NewRunDecoder(s.Hello.Params())}
	defer r.abort()
	for {
		msg, err := s.in.nextWithin(ctx, planPatience*s.cfg.StallTimeout)
		if err != nil {
			return nil, err
		}
		switch m := msg.(type) {
		case *protocol.Plan:
			err = r.add(ctx, m.Data)
		case *protocol.PlanEnd:
			return r.last(ctx, m, ok)
		default:
			return asFinish(msg, nil, "PLAN")
		}
		if err != nil {
			return nil, err
		}
	}
}

// begin starts a new plan, or a spool when there is one that may be the same.
func (r *planReader) begin(ctx context.Context) error {
	if r.builder != nil || r.spool != nil {
		return nil
	}
	if _, ok := r.s.W.Plan(); ok {
		r.spool = r.s.policy.Spool(ctx)
		return nil
	}
	return r.build()
}

// build starts a new plan. What PLANEND will say of the codec is not
// known yet, so the header names the one that the sender likes best.
func (r *planReader) build() (err error) {
	r.builder, err = r.s.W.StartPlan(r.s.facts())
	return err
}

func (r *planReader) add(ctx context.Context, piece []byte) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	if r.spool != nil {
		r.spool.Add(piece)
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
		r.builder.Abort() // which does nothing after Finish
	}
	if r.spool != nil {
		if err := r.spool.Close(); err != nil {
			r.s.policy.Log().Warn("closing a scratch file", "error", err)
		}
	}
}

// last deals with PLANEND: it finds the plan, waits for room, and makes a plan durable that is new.
func (r *planReader) last(ctx context.Context, m *protocol.PlanEnd, ok *protocol.PlanOK) (finish *protocol.Finish, err error) {
	known := false
	err = r.s.Busy(ctx, "the plan is compared", func() (err error) {
		known, err = r.choose(ctx, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	if finish, err = r.s.policy.MakeRoom(ctx, m, ok); err != nil || finish != nil || known {
		return finish, err
	}
	return nil, r.s.Busy(ctx, "the plan is laid out", func() error { return r.end(m) })
}

// choose checks the plan and finds out whether it is stored. If so, the session goes on with what is there.
func (r *planReader) choose(ctx context.Context, m *protocol.PlanEnd) (known bool, err error) {
	if m.Omitted {
		return false, protocol.Errorf(protocol.CodePlanMismatch, "PLANEND leaves out a plan that WELCOME did not name")
	}
	sum := r.runs.Sum()
	if err := sum.Check(m); err != nil {
		return false, err
	}
	r.s.LogWarnings(m.Warnings)
	if err := CheckPlan(m, r.s.ram); err != nil {
		return false, err
	}
	r.plan = PlanEnd(m)
	if known, err = r.find(ctx); known {
		p := r.s.W.Progress()
		r.s.policy.Log().Info("goes on", "pages", p.Present, "of", p.Planned)
	}
	return known, err
}

// find makes W the writer of a dump that has this plan, and reports whether there is one. If not, W has no plan at all.
func (r *planReader) find(ctx context.Context) (known bool, err error) {
	for {
		stored, ok := r.s.W.Plan()
		if !ok {
			return false, nil
		}
		if stored.Is(&r.plan) {
			return true, nil
		}
		if err := r.s.policy.OtherPlan(ctx, &stored); err != nil {
			return false, err
		}
	}
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
	r.s.policy.Log().Info("plan", "pages", m.Kept, "chunks", m.Chunks, "raw_bytes", m.Kept*uint64(r.s.Hello.PageSize))
	return nil
}

// errNoSpool is a mistake of a Policy that takes another plan and keeps no runs.
var errNoSpool = errors.New("the runs of the plan were not kept")

// rebuild starts a new plan with the runs that came before it was known to be one. A plan of no pages has none.
func (r *planReader) rebuild() error {
	if err := r.build(); err != nil {
		return err
	}
	if r.spool == nil {
		if r.plan.Pages > 0 {
			return errNoSpool
		}
		return nil
	}
	runs := protocol.NewRunDecoder(r.s.Hello.Params())
	return r.spool.Each(func(piece []byte) error {
		return runs.Decode(piece, func(run protocol.Run) error { return r.builder.Add(run.Extent) })
	})
}

// facts is what the front of vmcore says of the machine.
func (s *Session) facts() dumpdir.Facts {
	f := facts(s.Hello, s.Began, s.cfg.Codec)
	f.Notes, f.RAM = s.notes, s.ram
	return f
}
