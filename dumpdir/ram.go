package dumpdir

import (
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// ramCursor tells of ascending runs whether they are RAM.
type ramCursor struct {
	left []mem.Extent // runs of RAM, merged, from that of the last question on
}

// newRAMCursor starts at the first frame of RAM. Ranges that touch are joined.
func newRAMCursor(f *Facts) ramCursor {
	var c ramCursor
	for e := range kdumpfile.RAMExtents(f.RAM, vmcore.PageShift(f.PageSize), f.MaxPFN) {
		if n := len(c.left); n > 0 && c.left[n-1].End() == e.Start {
			c.left[n-1].Count += e.Count
			continue
		}
		c.left = append(c.left, e)
	}
	return c
}

// holds reports whether all of e is RAM. e begins at or behind the last one asked for.
func (c *ramCursor) holds(e mem.Extent) bool {
	for len(c.left) > 0 && c.left[0].End() <= e.Start {
		c.left = c.left[1:]
	}
	return len(c.left) > 0 && c.left[0].Start <= e.Start && e.End() <= c.left[0].End()
}
