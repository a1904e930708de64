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

// planBudget is how many bytes of the encoded plan are kept in memory. A run takes 2 to 4 bytes. Two million runs fit,
// more than a machine with 256 GiB usually has.
const planBudget = 8 << 20

// A Plan says which pages are sent and in which order. It is a pure function of the
// dump and the level.
type Plan struct {
	Level  pages.DumpLevel
	Params protocol.Params
	// Pages counts the page frames of RAM by kind, and the kept pages.
	Pages protocol.PageCounts
	// Sum counts and hashes the runs. The receiver computes the same.
	Sum protocol.PlanSum
	// Warnings are those of planning.
	Warnings []string

	src    *Source
	pieces [][]byte // the encoded plan, nil if larger than budget
	size   int      // of the encoded plan
	budget int      // bytes
	all    bool     // keep all pages, because the filter failed
}

// Plan computes the plan for a dump level. If the page filter fails, all pages are kept.
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
	err := catchPanic(func() error { return p.encode(ctx, p.count, p.cache) })()
	if err != nil {
		return nil, err
	}
	return p, nil
}

// ErrNoPages says that a plan keeps no page of a machine that has RAM. Such a plan is a mistake, because every level
// keeps the kernel image.
var ErrNoPages = errors.New("no page of the machine's RAM would be sent")

// checkPages returns ErrNoPages for a plan without pages.
func (p *Plan) checkPages() error {
	ram := p.src.RAMBytes()
	if p.Sum.Kept > 0 || ram == 0 {
		return nil
	}
	return fmt.Errorf("%w: of %s at dump level %d; the dump file holds none of it, or counts pages in another size", ErrNoPages, bytesize.Format(ram), p.Level)
}

// encode walks the memory map and passes the encoded plan to emit in pieces. count gets every run of RAM and how many of
// its pages are kept. If count is nil, the plan must have the hash of the first walk.
func (p *Plan) encode(ctx context.Context, count func(pages.Run, uint64), emit func([]byte) error) error {
	enc := protocol.NewRunEncoder(p.Params, emit)
	held := newHeldRuns(p.src.image)
	defer held.stop()
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
			if err := held.cut(r.Extent, func(e mem.Extent) error {
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

// errPlanMoved means that two walks of the same memory map gave different plans.
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

// cache keeps a piece of the encoded plan. It drops all pieces when they exceed the budget.
func (p *Plan) cache(piece []byte) error {
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

// Pieces passes the encoded plan to emit, which must not keep a piece. It walks the memory map again if the plan is
// larger than the budget.
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

// errStop ends an iteration early without a failure.
var errStop = errors.New("stop")

// chunks passes number and extents of each chunk of a tier to emit, in ascending order. first is the number of the tier's
// first chunk. emit must not keep the extents.
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

// each passes the chunks of the first tiers to emit, in send order. emit ends the iteration with errStop.
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

// end returns the PLANEND message of the plan.
func (p *Plan) end(codec protocol.Encoding, warnings []string) *protocol.PlanEnd {
	return &protocol.PlanEnd{
		Hash: p.Sum.Hash, Runs: p.Sum.Runs, Kept: p.Sum.Kept, Chunks: p.Sum.Chunks(),
		Tiers: p.tiers(), Pages: p.Pages, Codec: codec, Warnings: wireWarnings(slices.Concat(p.Warnings, warnings)),
	}
}

// pagesIn counts the pages of the first tiers that are in the chunks of a set. A nil set means all chunks.
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
