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

// collect is the part of a session in which pages come: from WELCOME to FINISH.
func (ss *session) collect(ctx context.Context) (*protocol.Finish, error) {
	if err := ss.welcome(); err != nil {
		return nil, err
	}
	finish, err := ss.readPlan(ctx)
	if err != nil || finish != nil {
		return finish, err
	}
	if err := ss.write(&protocol.PlanOK{Have: have(ss.w)}); err != nil {
		return nil, err
	}
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

// readPlan takes the plan. A sender that gives up meanwhile sends FINISH, which is
// returned.
func (ss *session) readPlan(ctx context.Context) (*protocol.Finish, error) {
	r := &planReader{ss: ss, runs: protocol.NewRunDecoder(ss.hello.Params())}
	defer r.abort()
	for {
		msg, err := ss.in.next(ctx)
		if err != nil {
			return nil, err
		}
		switch m := msg.(type) {
		case *protocol.Plan:
			err = r.add(m.Data)
		case *protocol.PlanEnd:
			return nil, r.end(ctx, m)
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
func (r *planReader) end(ctx context.Context, m *protocol.PlanEnd) error {
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
	if err := r.ss.checkSpace(ctx, m); err != nil {
		return err
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

// minRatio is how well the pages of a kernel are compressed at the very best. A plan
// that does not fit even then is refused before its first chunk; one that turns out
// not to fit is cut off when the reserve is reached, and sealed as it is.
const minRatio = 8

// descBytes is what each planned page costs in the front of vmcore.
const descBytes = 24

// checkSpace refuses a plan for which the store has no room, with the numbers.
func (ss *session) checkSpace(ctx context.Context, m *protocol.PlanEnd) error {
	space, err := ss.cfg.Store.Space(ctx)
	if err != nil {
		return err
	}
	if space.Total == 0 {
		return nil
	}
	need := m.Kept*descBytes + 2*uint64(ss.hello.MaxPFN)/8 + m.Kept*uint64(ss.hello.PageSize)/minRatio
	if space.Free >= ss.cfg.Reserve && space.Free-ss.cfg.Reserve >= need {
		return nil
	}
	return noSpace("%d bytes are free, %d are reserved, and %d pages need at least %d",
		space.Free, ss.cfg.Reserve, m.Kept, need)
}

func noSpace(format string, args ...any) error {
	err := protocol.Errorf(protocol.CodeNoSpace, format, args...)
	err.Hint, err.RetryAfter = "somebody has to make room on the receiver", spaceRetryAfter
	return err
}

// checkReserve stops a dump that has eaten into the reserve.
func (ss *session) checkReserve(ctx context.Context) error {
	space, err := ss.cfg.Store.Space(ctx)
	if err != nil {
		return err
	}
	if space.Total != 0 && space.Free < ss.cfg.Reserve {
		return noSpace("%d bytes are free, %d are reserved", space.Free, ss.cfg.Reserve)
	}
	return nil
}
