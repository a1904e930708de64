package kdumpfile

import (
	"errors"
	"iter"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// HeldPages implements vmcore.Holder: it reads the descriptors in order. A page with an invalid descriptor counts as
// held: it is damaged, not missing.
func (k *Reader) HeldPages() iter.Seq2[mem.Extent, error] {
	return func(yield func(mem.Extent, error) bool) {
		num := uint64(0)
		for run, err := range k.Pages() {
			held := mem.Extent{Start: run.Start}
			for ; err == nil && held.End() < run.End(); num++ {
				var missing bool
				if missing, err = k.missing(num); err != nil || !missing {
					held.Count++
					continue
				}
				if held.Count > 0 && !yield(held, nil) {
					return
				}
				held = mem.Extent{Start: held.End() + 1}
			}
			if err != nil {
				yield(mem.Extent{}, err)
				return
			}
			if held.Count > 0 && !yield(held, nil) {
				return
			}
		}
	}
}

// missing reports whether the page of descriptor number num is not in the file.
func (k *Reader) missing(num uint64) (bool, error) {
	d, err := k.descs.get(k, num)
	if err == nil {
		err = k.place(d, k.h.l.DescOffset(num))
	}
	switch {
	case errors.Is(err, vmcore.ErrIncomplete), errors.Is(err, vmcore.ErrTruncated):
		return true, nil
	case errors.Is(err, vmcore.ErrCorrupt):
		return false, nil
	}
	return false, err
}
