package sender

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// planBudget is how much of the coded plan is kept, in bytes. A run takes 2 to 4 bytes:
// this is room for some two million runs, which a machine of 256 GiB hardly has.
const planBudget = 8 << 20

// A Plan says which pages are sent and in which order. It is a pure function of the
// dump and the level.
type Plan struct {
	Level  pages.DumpLevel
	Params protocol.Params
	// Pages counts all RAM of the machine by kind and the pages kept.
	Pages protocol.PageCounts
	// Sum is what the receiver works out as well.
	Sum protocol.PlanSum
	// Warnings came up while planning.
	Warnings []string

	src    *Source
	pieces [][]byte // the coded plan, nil when it is larger than the budget
	size   int
	budget int
	all    bool // the filter failed: everything is kept
}

// Plan works out what is to be sent at a dump level. A page filter that fails midway
// costs the filtering, not the dump.
func (s *Source) Plan(ctx context.Context, level pages.DumpLevel) (*Plan, error) {
	return s.plan(ctx, level, planBudget)
}

func (s *Source) plan(ctx context.Context, level pages.DumpLevel, budget int) (*Plan, error) {
	p, err := s.tryPlan(ctx, level, budget, false)
	if err == nil {
		err = p.checkPages()
	}
	if err == nil || ctx.Err() != nil || s.pages == nil {
		return p, err
	}
	warning := fmt.Sprintf("the page filter failed: %v; all pages are kept", err)
	p, err = s.tryPlan(ctx, level, budget, true)
	if err == nil {
		err = p.checkPages()
	}
	if err != nil {
		return nil, err
	}
	p.Warnings = append(p.Warnings, warning)
	return p, nil
}

func (s *Source) tryPlan(ctx context.Context, level pages.DumpLevel, budget int, all bool) (*Plan, error) {
	p := &Plan{
		Level: level, src: s, budget: budget, all: all,
		Params: protocol.Params{PageSize: uint32(s.info.PageSize), MaxPFN: s.info.MaxPFN, Level: uint8(level)},
	}
	err := catchPanic(func() error { return p.encode(ctx, p.count, p.keep) })()
	if err != nil {
		return nil, err
	}
	return p, nil
}

// ErrNoPages says that a plan keeps no page of a machine that has RAM. The kernel's image at least is
// kept at every level, so nothing that such a plan sends would be a dump.
var ErrNoPages = errors.New("no page of the machine's RAM would be sent")

// checkPages refuses a plan without pages.
func (p *Plan) checkPages() error {
	ram := p.src.RAMBytes()
	if p.Sum.Kept > 0 || ram == 0 {
		return nil
	}
	return fmt.Errorf("%w: of %s at dump level %d; the dump file holds none of it, or counts pages in another size", ErrNoPages, bytesize.Format(ram), p.Level)
}

// encode walks the dump and passes the coded plan to emit, piece by piece. count,
// when not nil, sees every run, kept or not.
func (p *Plan) encode(ctx context.Context, count func(pages.Run, uint64), emit func([]byte) error) error {
	enc := protocol.NewRunEncoder(p.Params, emit)
	here := newHeldRuns(p.src.image)
	defer here.stop()
	log := mem.NewSplitter(p.src.logPages())
	walk := p.src.walk
	if p.all {
		walk = func(ctx context.Context, _ pages.DumpLevel, yield func(pages.Run) error) error {
			return p.src.walkAll(ctx, yield)
		}
	}
	covered := newCoverage(p.src.image.RAM(), p.src.info.PageShift())
	err := walk(ctx, p.Level, func(r pages.Run) error {
		if err := covered.add(r.Extent); err != nil {
			return err
		}
		kept := uint64(0)
		if !r.Excluded {
			if err := here.cut(r.Extent, func(e mem.Extent) error {
				kept += e.Count
				for part, isLog := range log.Split(e) {
					tier := tierOf(r.Class)
					if isLog {
						tier = tierLog
					}
					if err := enc.Add(protocol.Run{Extent: part, Tier: tier}); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return err
			}
		}
		if count != nil {
			count(r, kept)
		}
		return nil
	})
	if err == nil && count != nil {
		err = covered.end()
	}
	if err != nil {
		return err
	}
	sum, err := enc.Close()
	if err != nil {
		return err
	}
	if count == nil && sum.Hash != p.Sum.Hash {
		return errPlanMoved
	}
	p.Sum = sum
	return nil
}

// errPlanMoved means that two walks over the same dump gave different plans.
var errPlanMoved = errors.New("the memory map reads differently a second time")

func (p *Plan) count(r pages.Run, kept uint64) {
	p.Pages.Total += r.Count
	p.Pages.Kept += kept
	switch r.Class {
	case pages.Free:
		p.Pages.Free += r.Count
	case pages.Cache:
		p.Pages.Cache += r.Count
	case pages.CachePrivate:
		p.Pages.CachePrivate += r.Count
	case pages.User:
		p.Pages.User += r.Count
	case pages.HWPoison:
		p.Pages.HWPoison += r.Count
	case pages.Offline:
		p.Pages.Offline += r.Count
	}
}

// keep stores pieces of the coded plan until there are too many of them.
func (p *Plan) keep(piece []byte) error {
	p.size += len(piece)
	if p.size > p.budget {
		p.pieces = nil
		return nil
	}
	p.pieces = append(p.pieces, append([]byte(nil), piece...))
	return nil
}

func (p *Plan) cached() bool { return p.size <= p.budget }

// Bytes returns the size of the kept pages before compression.
func (p *Plan) Bytes() uint64 { return p.Sum.Kept * uint64(p.Params.PageSize) }

// Pieces passes the coded plan to emit, which must not keep it, walking the dump again
// when the plan is larger than its budget.
func (p *Plan) Pieces(ctx context.Context, emit func(piece []byte) error) error {
	if !p.cached() {
		return p.encode(ctx, nil, emit)
	}
	for _, piece := range p.pieces {
		if err := emit(piece); err != nil {
			return err
		}
	}
	return nil
}

// tiers describes the tiers of the plan for the receiver.
func (p *Plan) tiers() []protocol.Tier {
	var list []protocol.Tier
	for i := range numTiers {
		list = append(list, protocol.Tier{
			Name: tierNames[i], Essential: i < essentialTiers,
			Pages: p.Sum.Pages[i], Chunks: p.Sum.TierChunks(int(i)),
		})
	}
	return list
}

// errStop ends an iteration early; it is no failure.
var errStop = errors.New("stop")

// chunks passes the extents of the chunks of one tier to emit in ascending order of
// their numbers, the first of which is first. emit must not keep the extents.
func (p *Plan) chunks(ctx context.Context, tier uint8, first uint64, emit func(seq uint64, extents []mem.Extent) error) error {
	seq := first
	cut := protocol.NewCutter(p.Params.PageSize, func(extents []mem.Extent) error {
		seq++
		return emit(seq-1, extents)
	})
	dec := protocol.NewRunDecoder(p.Params)
	err := p.Pieces(ctx, func(piece []byte) error {
		return dec.Decode(piece, func(r protocol.Run) error {
			if r.Tier != tier {
				return nil
			}
			return cut.Add(r.Extent)
		})
	})
	if err != nil {
		return err
	}
	return cut.Flush()
}

// each passes every chunk of the plan's first tiers to emit, in the order in which they
// are sent. emit ends the iteration with errStop.
func (p *Plan) each(ctx context.Context, tiers uint8, emit func(tier uint8, seq uint64, extents []mem.Extent) error) error {
	first := uint64(0)
	for tier := range tiers {
		if p.Sum.Pages[tier] > 0 {
			err := p.chunks(ctx, tier, first, func(seq uint64, extents []mem.Extent) error { return emit(tier, seq, extents) })
			if errors.Is(err, errStop) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		first += p.Sum.TierChunks(int(tier))
	}
	return nil
}

// end describes the plan for the receiver.
func (p *Plan) end(codec protocol.Encoding, warnings []string) *protocol.PlanEnd {
	return &protocol.PlanEnd{
		Hash: p.Sum.Hash, Runs: p.Sum.Runs, Kept: p.Sum.Kept, Chunks: p.Sum.Chunks(),
		Tiers: p.tiers(), Pages: p.Pages, Codec: codec, Warnings: wireWarnings(slices.Concat(p.Warnings, warnings)),
	}
}

// pagesIn counts the pages of the first tiers that are in the chunks of a set; a nil
// set has all chunks.
func (p *Plan) pagesIn(tiers uint8, set *protocol.SeqSet) uint64 {
	per := uint64(protocol.ChunkPages(p.Params.PageSize))
	total, first := uint64(0), uint64(0)
	for tier := range tiers {
		pages, chunks := p.Sum.Pages[tier], p.Sum.TierChunks(int(tier))
		if set == nil {
			total += pages
		} else if chunks > 0 {
			last := first + chunks - 1
			for r := range set.Ranges() {
				if lo, hi := max(r.First, first), min(r.Last, last); lo <= hi {
					total += (hi - lo + 1) * per
				}
			}
			if set.Contains(last) {
				total -= chunks*per - pages // the last chunk of a tier may be short
			}
		}
		first += chunks
	}
	return total
}
