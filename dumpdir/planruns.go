package dumpdir

import (
	"encoding/binary"
	"fmt"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// runEncoder encodes ascending runs as pairs of unsigned varints: the gap from the end of the run before, and the
// count. It merges runs that touch, so that a set of pages has one encoding.
type runEncoder struct {
	limit mem.PFN
	buf   []byte
	cur   mem.Extent // not yet encoded, because the next run may touch it
	last  mem.PFN    // end of the last encoded run
	runs  uint64
	pages uint64
}

// add takes the next run. The error matches ErrBadPlan.
func (r *runEncoder) add(e mem.Extent) error {
	if !e.Valid(r.limit) || e.Start < r.cur.End() {
		return fmt.Errorf("%w: run of %d pages at pfn %d, after pfn %d, max_mapnr %d", ErrBadPlan, e.Count, e.Start, r.cur.End(), r.limit)
	}
	r.pages += e.Count
	if r.cur.Count > 0 && e.Start == r.cur.End() {
		r.cur.Count += e.Count
		return nil
	}
	r.flush()
	r.cur = e
	return nil
}

// flush encodes the pending run. It leaves its end in cur, for the order check.
func (r *runEncoder) flush() {
	if r.cur.Count == 0 {
		return
	}
	r.buf = binary.AppendUvarint(r.buf, uint64(r.cur.Start-r.last))
	r.buf = binary.AppendUvarint(r.buf, r.cur.Count)
	r.last = r.cur.End()
	r.runs++
	r.cur = mem.Extent{Start: r.last}
}

// runDecoder decodes the pieces of a runEncoder.
type runDecoder struct {
	limit mem.PFN
	last  mem.PFN
	runs  uint64
	pages uint64
}

// piece calls yield with each run of a piece. more is false when yield stopped it.
func (r *runDecoder) piece(p []byte, yield func(mem.Extent) bool) (more bool, err error) {
	for len(p) > 0 {
		gap, n := binary.Uvarint(p)
		if n <= 0 {
			return false, errRuns
		}
		count, m := binary.Uvarint(p[n:])
		if m <= 0 || gap > uint64(r.limit-r.last) || r.runs > 0 && gap == 0 {
			return false, errRuns
		}
		p = p[n+m:]
		e := mem.Extent{Start: r.last + mem.PFN(gap), Count: count}
		if !e.Valid(r.limit) {
			return false, errRuns
		}
		r.last = e.End()
		r.runs++
		r.pages += count
		if !yield(e) {
			return false, nil
		}
	}
	return true, nil
}

var errRuns = fmt.Errorf("%w: runs do not decode", ErrBadPlan)

// ramCursor tells whether ascending runs are RAM.
type ramCursor struct {
	left []mem.Extent // runs of RAM, merged, without those before the last query
}

// newRAMCursor starts at the first frame of RAM. It merges ranges that touch.
func newRAMCursor(f *Facts) ramCursor {
	var c ramCursor
	for e := range kdumpfile.RAMExtents(f.RAM, vmcore.PageShift(f.PageSize), f.MaxPFN) {
		c.left = mem.AppendExtent(c.left, e)
	}
	return c
}

// holds reports whether all of e is RAM. e must not begin before the last query.
func (c *ramCursor) holds(e mem.Extent) bool {
	for len(c.left) > 0 && c.left[0].End() <= e.Start {
		c.left = c.left[1:]
	}
	return len(c.left) > 0 && c.left[0].Start <= e.Start && e.End() <= c.left[0].End()
}
