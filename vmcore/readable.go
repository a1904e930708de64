package vmcore

import (
	"context"
	"errors"
	"iter"

	"github.com/corehaul/corehaul/mem"
)

// Readable is an Image that knows which pages cannot be read: it does not hold them.
type Readable struct {
	Image
	lost []mem.Extent // ascending, no two touch
}

// OnlyReadable reads the pages that img holds once and returns img without those that cannot be
// read. It is for a format that lays out its pages before it has read them, and that has no mark
// for a missing page. Errors are those of the medium and of ctx.
func OnlyReadable(ctx context.Context, img Image) (*Readable, error) {
	r := &Readable{Image: img}
	page := make([]byte, img.Info().PageSize)
	for e, err := range HeldPages(img) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			switch err := img.ReadPage(page, pfn); {
			case err == nil:
			case errors.Is(err, ErrCorrupt), errors.Is(err, ErrTruncated), errors.Is(err, ErrIncomplete):
				r.leaveOut(pfn)
			default:
				return nil, err
			}
		}
	}
	return r, nil
}

// LostPages returns how many pages are left out.
func (r *Readable) LostPages() (n uint64) {
	for _, e := range r.lost {
		n += e.Count
	}
	return n
}

// leaveOut leaves a page out that lies behind all others.
func (r *Readable) leaveOut(pfn mem.PFN) {
	if n := len(r.lost); n > 0 && r.lost[n-1].End() == pfn {
		r.lost[n-1].Count++
		return
	}
	r.lost = append(r.lost, mem.Extent{Start: pfn, Count: 1})
}

// HeldPages implements Holder.
func (r *Readable) HeldPages() iter.Seq2[mem.Extent, error] {
	return func(yield func(mem.Extent, error) bool) {
		lost := r.lost
		for e, err := range HeldPages(r.Image) {
			for err == nil && len(lost) > 0 && lost[0].Start < e.End() {
				gap := lost[0]
				lost = lost[1:]
				before := mem.Extent{Start: e.Start, Count: uint64(gap.Start - e.Start)}
				if before.Count > 0 && !yield(before, nil) {
					return
				}
				end := e.End()
				e = mem.Extent{Start: gap.End(), Count: 0}
				if gap.End() < end {
					e.Count = uint64(end - gap.End())
				} else if gap.End() > end { // goes on in the next run, which touches this one
					lost = append([]mem.Extent{{Start: end, Count: uint64(gap.End() - end)}}, lost...)
					break
				}
			}
			if (e.Count > 0 || err != nil) && !yield(e, err) {
				return
			}
		}
	}
}
