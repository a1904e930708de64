package dumpcopy

import (
	"iter"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// heldPages iterates over the pages in the file of a dump, once and in order.
type heldPages struct {
	next func() (mem.Extent, error, bool)
	cur  mem.Extent // the current run; empty behind the last one
	err  error
	more bool
}

// open starts with the first pages of img. The caller has to call stop in the end.
func (h *heldPages) open(img vmcore.Image) (stop func()) {
	h.next, stop = iter.Pull2(vmcore.HeldPages(img))
	h.advance()
	return stop
}

func (h *heldPages) advance() { h.cur, h.err, h.more = h.next() }

// in returns the first run of held pages within e, cut to e. If there is none, it returns an empty run at the end of e. e
// must ascend from call to call. Errors are those of the medium.
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
