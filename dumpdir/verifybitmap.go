package dumpdir

import (
	"io"
	"math/bits"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// rankedBitmap counts the bits before a page in the expected bitmap. It uses the bitmap in the file and corrects the
// wrong bytes.
type rankedBitmap struct {
	r      io.ReaderAt
	start  int64
	ranks  map[int64]uint64 // bits before each block that has any
	right  map[int64]byte   // corrected bytes, by file offset
	lost   bool             // too many wrong bytes
	total  uint64
	block  [rankBlock]byte
	blockN int64
}

const (
	rankBlock  = 4096
	maxPatches = 1 << 16
)

func newRankedBitmap(r io.ReaderAt, l kdumpfile.Layout) *rankedBitmap {
	return &rankedBitmap{r: r, start: l.Bitmap2, ranks: make(map[int64]uint64), right: make(map[int64]byte), blockN: -1}
}

// learn takes a block of the expected bitmap, which begins off bytes behind its start. Blocks ascend.
func (b *rankedBitmap) learn(off int64, block []byte) {
	b.ranks[off/rankBlock] = b.total
	for ; len(block) > 0; block = block[8:] {
		b.total += ones(le.Uint64(block))
	}
}

func (b *rankedBitmap) patch(off int64, want byte) {
	if len(b.right) == maxPatches {
		b.lost = true
		return
	}
	b.right[off] = want
}

// rank returns the number of pages before e. ok is false if a page of e is not in the bitmap.
func (b *rankedBitmap) rank(e mem.Extent) (n uint64, ok bool, err error) {
	for pfn := e.Start; pfn < e.End(); {
		blk := int64(pfn / (rankBlock * 8)) //nolint:gosec // below 1 << 25
		if err := b.load(blk); err != nil {
			return 0, false, err
		}
		lo := uint64(pfn % (rankBlock * 8))
		hi := min(lo+uint64(e.End()-pfn), rankBlock*8)
		for i := lo; i < hi; i++ {
			if b.block[i/8]>>(i%8)&1 == 0 {
				return 0, false, nil
			}
		}
		if pfn == e.Start {
			n = b.ranks[blk] + b.before(lo)
		}
		pfn += mem.PFN(hi - lo)
	}
	return n, true, nil
}

func ones(w uint64) uint64 { return uint64(bits.OnesCount64(w)) } //nolint:gosec // at most 64

// before counts the set bits below bit i of the block.
func (b *rankedBitmap) before(i uint64) (n uint64) {
	for j := uint64(0); j+64 <= i; j += 64 {
		n += ones(le.Uint64(b.block[j/8:]))
	}
	if rest := i % 64; rest > 0 {
		n += ones(le.Uint64(b.block[i/64*8:]) << (64 - rest))
	}
	return n
}

func (b *rankedBitmap) load(n int64) error {
	if b.blockN == n {
		return nil
	}
	b.blockN = -1
	at := b.start + n*rankBlock
	if _, err := b.r.ReadAt(b.block[:], at); err != nil {
		return err
	}
	if len(b.right) > 0 {
		for i := range b.block {
			if x, ok := b.right[at+int64(i)]; ok {
				b.block[i] = x
			}
		}
	}
	b.blockN = n
	return nil
}
