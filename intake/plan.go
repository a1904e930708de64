package intake

import (
	"context"
	"errors"
	"unsafe"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// planReader takes a plan from the wire and gives it to the writer, unless the writer has it. A sender whose plan
// WELCOME named leaves out the runs. Otherwise the runs may still be those of the stored plan: if the sender ignores
// WELCOME, or the journal has only half of the hash. They are kept until PLANEND decides.
type planReader struct {
	s       *Session
	runs    *protocol.RunDecoder
	came    bool                 // runs have come
	builder *dumpdir.PlanBuilder // where they go
	beside  bool                 // W has a plan: that of the builder has no place yet
	lost    error                // why those runs were not kept; matters only if the plan is new
	plan    dumpdir.PlanEnd
}

// planPatience is how many stall timeouts a sender may take for its plan: it first reads the memory map of the whole
// machine.
const planPatience = 6

// readPlan takes the plan, and lets the policy complete ok. If the sender gives up meanwhile, readPlan returns its
// FINISH.
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

// begin starts to store the runs. The codec of PLANEND is not known yet, so the header names the sender's first
// choice.
func (r *planReader) begin() (err error) {
	_, r.beside = r.s.W.Plan()
	switch {
	case !r.beside:
		r.builder, err = r.s.W.StartPlan(r.s.facts())
	case r.s.cfg.OtherPlans:
		r.builder, r.lost = r.s.W.StartOtherPlan(r.s.facts())
	default:
		r.lost = errNotKept
	}
	return err
}

// errNotKept is a bug of a Policy that takes another plan without keeping its runs.
var errNotKept = errors.New("the runs of the plan were not kept")

func (r *planReader) add(ctx context.Context, piece []byte) error {
	bytes := int64(len(piece))
	if !r.came {
		bytes += int64(len(r.s.notes)) + int64(len(r.s.ram))*int64(unsafe.Sizeof(mem.Range{}))
	}
	if err := r.s.policy.RoomFor(ctx, Plan, bytes); err != nil {
		return err
	}
	if !r.came {
		r.came = true
		if err := r.begin(); err != nil {
			return err
		}
	}
	return r.runs.Decode(piece, func(run protocol.Run) error {
		if r.lost != nil {
			return nil
		}
		err := r.builder.Add(run.Extent)
		if r.beside {
			r.lost, err = err, nil
		}
		return err
	})
}

func (r *planReader) abort() {
	if r.builder != nil {
		r.builder.Abort() // does nothing after Finish
	}
}

// last handles PLANEND: it finds the plan, waits for space, and makes a new plan durable.
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

// choose checks the plan and looks for it among the stored ones. If it is stored, the session continues that dump.
func (r *planReader) choose(ctx context.Context, m *protocol.PlanEnd) (known bool, err error) {
	r.plan = PlanEnd(m)
	if err := r.check(m); err != nil {
		return false, err
	}
	r.s.LogWarnings(m.Warnings)
	if err := CheckPlan(m, r.s.ram); err != nil {
		return false, err
	}
	if known, err = r.find(ctx); known {
		p := r.s.W.Progress()
		r.s.policy.Log().Info("goes on", "pages", p.Present, "of", p.Planned)
	}
	return known, err
}

// check compares PLANEND with the runs, or with the plan that WELCOME named if there were no runs.
func (r *planReader) check(m *protocol.PlanEnd) error {
	if !m.Omitted {
		sum := r.runs.Sum()
		return sum.Check(m)
	}
	named := r.s.namedPlan()
	if r.came || named == nil || *named != m.Hash {
		return protocol.Errorf(protocol.CodePlanMismatch, "PLANEND leaves out a plan that WELCOME did not name")
	}
	if stored, _ := r.s.W.Plan(); !stored.Is(&r.plan) {
		return protocol.Errorf(protocol.CodePlanMismatch, "PLANEND says %d pages in %d chunks; the plan that WELCOME named has %d in %d",
			m.Kept, m.Chunks, stored.Pages, stored.Chunks)
	}
	return nil
}

// namedPlan is what WELCOME says about W's plan: nil if W has none, or if the journal lacks half of the hash.
func (s *Session) namedPlan() *protocol.PlanHash {
	stored, ok := s.W.Plan()
	if !ok || !stored.Hash.Whole() {
		return nil
	}
	hash := protocol.PlanHash(stored.Hash)
	return &hash
}

// find makes W the writer of a dump with this plan, and reports whether there is one. If not, W has no plan.
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

// end makes a new plan durable.
func (r *planReader) end(m *protocol.PlanEnd) (err error) {
	switch {
	case !r.came: // a plan of no pages
		err = r.begin()
	case r.lost != nil:
		err = r.lost
	case r.beside:
		err = r.builder.MoveTo(r.s.W)
	}
	if err == nil {
		err = r.builder.Finish(r.plan)
	}
	if err == nil {
		r.s.policy.Log().Info("plan", "pages", m.Kept, "chunks", m.Chunks, "raw_bytes", m.Kept*uint64(r.s.Hello.PageSize))
	}
	return err
}

// facts returns the facts for the front of vmcore.
func (s *Session) facts() dumpdir.Facts {
	f := facts(s.Hello, s.Began, s.cfg.Codec)
	f.Notes, f.RAM = s.notes, s.ram
	return f
}

// BitmapBytes returns the bytes that both bitmaps of the dump take on a disk.
func (s *Session) BitmapBytes() uint64 {
	return uint64(kdumpfile.BitmapBytes(s.ram, int(s.Hello.PageSize), s.Hello.MaxPFN))
}
