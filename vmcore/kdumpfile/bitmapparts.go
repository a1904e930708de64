package kdumpfile

import (
	"iter"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// BitmapParts yields the parts of a bitmap that can have a set bit, because their frames are RAM: offset from the
// start of the bitmap and length, in bytes. Parts ascend, do not touch, and are whole blocks of 4 KiB. The other bytes
// of both bitmaps are zero, whatever is planned, and a Writer never writes them. The ranges must be sorted by start.
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

// BitmapBytes returns the bytes of both bitmaps that are not a hole of the file: see BitmapParts.
func BitmapBytes(ram []mem.Range, pageSize int, maxPFN mem.PFN) (bytes int64) {
	for _, n := range BitmapParts(ram, pageSize, maxPFN) {
		bytes += 2 * n
	}
	return bytes
}
