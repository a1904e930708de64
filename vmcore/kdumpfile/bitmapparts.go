package kdumpfile

import (
	"iter"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// BitmapParts yields the parts of a bitmap whose frames include RAM: offset from the start of the bitmap and length, in
// bytes. Parts ascend, do not touch, and are whole blocks of 4 KiB. In both bitmaps the other bytes are zero for any
// plan, and a Writer never writes them. The ranges must be sorted by start.
func BitmapParts(ram []mem.Range, pageSize int, maxPFN mem.PFN) iter.Seq2[int64, int64] {
	return func(yield func(off, n int64) bool) {
		var first, end int64 // blocks
		for e := range RAMExtents(ram, vmcore.PageShift(pageSize), maxPFN) {
			from, to := blockOf(e.Start), blockOf(e.End()-1)+1
			if from <= end {
				end = to
				continue
			}
			if first < end && !yield(first*bitBlockLen, (end-first)*bitBlockLen) {
				return
			}
			first, end = from, to
		}
		if first < end {
			yield(first*bitBlockLen, (end-first)*bitBlockLen)
		}
	}
}

// BitmapBytes returns the number of bytes of both bitmaps outside holes: see BitmapParts.
func BitmapBytes(ram []mem.Range, pageSize int, maxPFN mem.PFN) (bytes int64) {
	for _, n := range BitmapParts(ram, pageSize, maxPFN) {
		bytes += 2 * n
	}
	return bytes
}
