package receiver

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// takePages is the part of a session in which pages come: from WELCOME to FINISH.
func (ss *session) takePages(ctx context.Context) (*protocol.Finish, error) {
	collect := protocol.CollectAll
	if ss.verdict.action == ActionEssential {
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
	ok := &protocol.PlanOK{Have: have(ss.w), Note: ss.note}
	if ss.collect == protocol.CollectEssential {
		ok.Collect = protocol.CollectEssential
	}
	if err := ss.write(ok); err != nil {
		return nil, err
	}
	ss.view.enter(stateReceiving)
	return ss.readChunks(ctx)
}

// have returns the durable chunks, or as many of them as a message may name.
func have(w *dumpdir.Writer) protocol.SeqSet {
	var set protocol.SeqSet
	for _, r := range w.Have() {
		if r.Count == 0 {
			continue
		}
		if set.Add(r.Start, r.End()-1) != nil {
			break // the rest comes twice, and is told apart then
		}
	}
	return set
}

// planReader takes a plan from the wire and gives it to the store, or compares it
// with the one that is there.
type planReader struct {
	ss      *session
	runs    *protocol.RunDecoder
	builder *dumpdir.PlanBuilder // nil when a plan is stored already
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
			err = r.add(m.Data)
		case *protocol.PlanEnd:
			if finish, err := ss.makeRoom(ctx, m); err != nil || finish != nil {
				return finish, err
			}
			return nil, ss.busy(ctx, "the plan is laid out", func() error { return r.end(m) })
		default:
			return asFinish(msg, nil, "PLAN")
		}
		if err != nil {
			return nil, err
		}
	}
}

// begin starts a new plan in the store. What PLANEND will say of the codec is not
// known yet, so the header names the one that the sender likes best.
func (r *planReader) begin() error {
	if _, ok := r.ss.w.Plan(); ok || r.builder != nil {
		return nil
	}
	var err error
	r.builder, err = r.ss.w.StartPlan(r.ss.facts())
	return err
}

func (r *planReader) add(piece []byte) error {
	if err := r.begin(); err != nil {
		return err
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
}

// end checks the plan and makes it durable.
func (r *planReader) end(m *protocol.PlanEnd) error {
	if m.Omitted {
		return protocol.Errorf(protocol.CodePlanMismatch, "PLANEND leaves out a plan that WELCOME did not name")
	}
	sum := r.runs.Sum()
	if err := sum.Check(m); err != nil {
		return err
	}
	r.ss.logWarnings(m.Warnings)
	if err := r.begin(); err != nil { // a plan of no pages has no PLAN message
		return err
	}
	end := dumpdir.PlanEnd{Hash: planHash(m.Hash), Chunks: m.Chunks, Pages: m.Kept, Classes: classes(m.Pages)}
	if r.builder == nil {
		return r.compare(end)
	}
	if err := r.builder.Finish(end); err != nil {
		return err
	}
	r.ss.log.Info("plan", "pages", m.Kept, "chunks", m.Chunks, "raw_bytes", m.Kept*uint64(r.ss.hello.PageSize))
	return nil
}

// compare holds the plan against the stored one. They are never mixed.
func (r *planReader) compare(end dumpdir.PlanEnd) error {
	stored, _ := r.ss.w.Plan()
	if stored.Hash != end.Hash || stored.Chunks != end.Chunks || stored.Pages != end.Pages {
		err := protocol.Errorf(protocol.CodePlanMismatch,
			"a plan of %d pages in %d chunks is stored for this dump, not this one of %d in %d",
			stored.Pages, stored.Chunks, end.Pages, end.Chunks)
		err.Hint = fmt.Sprintf("send with the dump level of the first time (%d), or have the dump removed from the receiver", stored.DumpLevel)
		return err
	}
	p := r.ss.w.Progress()
	r.ss.log.Info("goes on", "pages", p.Present, "of", p.Planned)
	return nil
}

// planHash is the part of the hash that the journal keeps.
func planHash(h protocol.PlanHash) uint64 { return binary.BigEndian.Uint64(h[:8]) }

func classes(p protocol.PageCounts) map[string]uint64 {
	return map[string]uint64{
		"total": p.Total, "kept": p.Kept, "free": p.Free, "cache": p.Cache, "cache_private": p.CachePrivate,
		"user": p.User, "hwpoison": p.HWPoison, "offline": p.Offline,
	}
}

// facts is what the front of vmcore says of the machine.
func (ss *session) facts() dumpdir.Facts {
	h := ss.hello
	f := dumpdir.Facts{
		Utsname: dumpdir.Utsname(h.Uts), Time: ss.begin, PageSize: int(h.PageSize), MaxPFN: h.MaxPFN, NrCPUs: h.NrCPUs,
		DumpLevel: h.Level, Codecs: ss.codecs(), Notes: ss.notes, RAM: ss.ram,
	}
	if h.CrashTime > 0 {
		f.Time = time.Unix(h.CrashTime, 0).UTC()
	}
	if h.CurrentCPU != nil {
		f.CurrentCPU = *h.CurrentCPU
	}
	if h.PhysBase != nil {
		f.PhysBase = *h.PhysBase
	}
	return f
}

// codecs is the compressor that the header names: the sender's favourite, if its
// pages are stored as they come. Readers go by each page's own flags.
func (ss *session) codecs() uint32 {
	for _, e := range ss.hello.Encodings {
		switch e {
		case protocol.EncodingSnappyPage:
			return uint32(kdumpfile.Snappy)
		case protocol.EncodingZstdPage:
			return uint32(kdumpfile.Zstd)
		}
	}
	return uint32(ss.cfg.Codec)
}
