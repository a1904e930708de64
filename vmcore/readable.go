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
				r.lost = mem.AppendExtent(r.lost, mem.Extent{Start: pfn, Count: 1})
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

// HeldPages implements Holder.
func (r *Readable) HeldPages() iter.Seq2[mem.Extent, error] {
	return func(yield func(mem.Extent, error) bool) {
		lost := mem.NewSplitter(r.lost)
		for e, err := range HeldPages(r.Image) {
			if err != nil {
				yield(e, err)
				return
			}
			for part, isLost := range lost.Split(e) {
				if !isLost && !yield(part, nil) {
					return
				}
			}
		}
	}
}
