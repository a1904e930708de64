package kdumpclients

import (
	"iter"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// heldPages goes through the pages that the file of a dump holds, once and in order.
type heldPages struct {
	next func() (mem.Extent, error, bool)
	cur  mem.Extent // the run that was looked at last; empty behind the last one
	err  error
	more bool
}

// open begins with the pages of img. The caller calls stop in the end.
func (h *heldPages) open(img vmcore.Image) (stop func()) {
	h.next, stop = iter.Pull2(vmcore.HeldPages(img))
	h.advance()
	return stop
}

func (h *heldPages) advance() { h.cur, h.err, h.more = h.next() }

// in returns the first run of held pages within e, cut to it: an empty one at the end of e when there is none. From one call
// to the next e ascends. The error is about the medium.
func (h *heldPages) in(e mem.Extent) (mem.Extent, error) {
	for h.more && h.err == nil && h.cur.End() <= e.Start {
		h.advance()
	}
	if h.err != nil {
		return mem.Extent{}, h.err
	}
	if held := e.Intersect(h.cur); h.more && held.Count > 0 {
		return held, nil
	}
	return mem.Extent{Start: e.End()}, nil
}
