package kdumpfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/bits"

	"github.com/corehaul/corehaul/mem"
)

// Bitmaps are processed in blocks of this size, whatever the page size. Their length is a multiple of it.
const (
	bitBlockLen = 4096
	bitBlockPFN = bitBlockLen * 8 // page frames in one
)

// ErrOrder is returned for runs of page frames that are empty, overlap, do not ascend or exceed the last frame.
var ErrOrder = errors.New("kdumpfile: page runs not ascending, disjoint and within max_mapnr")

type bitBlock [bitBlockLen]byte

// blockOf returns the number of the block that has the bit of frame pfn.
func blockOf(pfn mem.PFN) int64 { return int64(pfn / bitBlockPFN) } //nolint:gosec // below 1 << 52

// blockStart returns the first frame of block n.
func blockStart(n int64) mem.PFN { return mem.PFN(n) * bitBlockPFN } //nolint:gosec // not negative

// eachBitBlock calls fn with each block of the bitmap of runs that has a set bit, ascending, and returns the number
// of set bits. The block is reused.
func eachBitBlock(limit mem.PFN, runs iter.Seq[mem.Extent], fn func(n int64, b *bitBlock) error) (uint64, error) {
	var block bitBlock
	var count uint64
	cur, end := int64(-1), mem.PFN(0)
	for e := range runs {
		if !e.Valid(limit) || e.Start < end {
			return count, fmt.Errorf("%w: %v after frame %d", ErrOrder, e, end)
		}
		end = e.End()
		count += e.Count
		for e.Count > 0 {
			n := blockOf(e.Start)
			if n != cur {
				if err := flushBlock(cur, &block, fn); err != nil {
					return count, err
				}
				cur = n
			}
			e = block.fill(e)
		}
	}
	return count, flushBlock(cur, &block, fn)
}

func flushBlock(n int64, b *bitBlock, fn func(int64, *bitBlock) error) error {
	if n < 0 {
		return nil
	}
	err := fn(n, b)
	clear(b[:])
	return err
}

// fill sets the bits of e that lie in the block of its first frame, and returns the rest of e.
func (b *bitBlock) fill(e mem.Extent) mem.Extent {
	lo := uint64(e.Start % bitBlockPFN)
	hi := min(lo+e.Count, bitBlockPFN)
	rest := e.Drop(hi - lo)
	for lo < hi && lo%8 != 0 {
		b[lo/8] |= 1 << (lo % 8)
		lo++
	}
	for ; lo+8 <= hi; lo += 8 {
		b[lo/8] = 0xff
	}
	for ; lo < hi; lo++ {
		b[lo/8] |= 1 << (lo % 8)
	}
	return rest
}

func (b *bitBlock) has(i uint64) bool { return b[i/8]>>(i%8)&1 != 0 }

func (b *bitBlock) clearBit(i uint64) { b[i/8] &^= 1 << (i % 8) }

func (b *bitBlock) word(i int) uint64 { return binary.LittleEndian.Uint64(b[i*8:]) }

// count returns the number of bits set below bit i.
func (b *bitBlock) count(i uint64) uint64 {
	n, w := 0, 0
	for ; uint64(w+1)*64 <= i; w++ {
		n += bits.OnesCount64(b.word(w))
	}
	if rest := i % 64; rest != 0 {
		n += bits.OnesCount64(b.word(w) << (64 - rest))
	}
	return uint64(n)
}

// next returns the first bit from i on that is set (clear if set is false), or bitBlockPFN if there is none.
func (b *bitBlock) next(i uint64, set bool) uint64 {
	for i < bitBlockPFN {
		w := b.word(int(i / 64))
		if !set {
			w = ^w
		}
		if w >>= i % 64; w != 0 {
			return i + uint64(bits.TrailingZeros64(w)) //nolint:gosec // not negative
		}
		i = i/64*64 + 64
	}
	return bitBlockPFN
}

// BitmapBlocks calls fn with each block of 4 KiB of the bitmap of runs that has a set bit, and its offset from the start
// of the bitmap, ascending. All other bytes of l.BitmapLen are zero. The block is reused. The error matches ErrOrder if
// runs are not ascending and disjoint, or is that of fn.
func BitmapBlocks(l Layout, runs iter.Seq[mem.Extent], fn func(off int64, block []byte) error) error {
	_, err := eachBitBlock(l.MaxPFN, runs, func(n int64, b *bitBlock) error { return fn(n*bitBlockLen, b[:]) })
	return err
}

// RAMExtents yields the page frames that the ranges touch, as ascending disjoint runs: the 1st bitmap. The ranges
// must be sorted by start. Frames from limit on are left out.
func RAMExtents(ram []mem.Range, pageShift uint, limit mem.PFN) iter.Seq[mem.Extent] {
	return func(yield func(mem.Extent) bool) {
		end := mem.PFN(0)
		for _, r := range ram {
			e := r.Pages(pageShift).Intersect(mem.Between(end, limit))
			if e.Count == 0 {
				continue
			}
			if end = e.End(); !yield(e) {
				return
			}
		}
	}
}
