package vmcore

import (
	"context"
	"errors"
	"iter"

	"github.com/corehaul/corehaul/mem"
)

// Readable is an Image without its unreadable pages.
type Readable struct {
	Image
	lost []mem.Extent // ascending, no two touch
}

// OnlyReadable reads all pages of img once and returns img without those that cannot be read. It is for formats that
// lay out their pages before they read them, without a mark for a missing page. Errors are the medium's or that of
// ctx.
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

// LostPages returns the number of unreadable pages.
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
