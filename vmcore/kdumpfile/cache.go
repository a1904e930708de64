package kdumpfile

import (
	"iter"
	"math/bits"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// cut clears the bits from bit i on.
func (b *bitBlock) cut(i uint64) {
	if i >= bitBlockPFN {
		return
	}
	if i%8 != 0 {
		b[i/8] &= 1<<(i%8) - 1
		i = i/8*8 + 8
	}
	clear(b[i/8:])
}

func (b *bitBlock) empty() bool { return *b == bitBlock{} }

// runs yields the runs of set bits of b, block n of its bitmap.
func (b *bitBlock) runs(n int64) iter.Seq[mem.Extent] {
	return func(yield func(mem.Extent) bool) {
		base := blockStart(n)
		for i := b.next(0, true); i < bitBlockPFN; {
			end := b.next(i, false)
			if !yield(mem.Extent{Start: base + mem.PFN(i), Count: end - i}) {
				return
			}
			i = b.next(end, true)
		}
	}
}

// rankedBlock is a block of the 2nd bitmap with the number of bits below each of its words.
type rankedBlock struct {
	bitBlock
	n     int64
	below [bitBlockLen / 8]uint16
}

func (b *rankedBlock) rank(i uint64) uint64 {
	below := uint64(b.below[i/64])
	if rest := i % 64; rest != 0 {
		below += uint64(bits.OnesCount64(b.word(int(i/64)) << (64 - rest))) //nolint:gosec // not negative
	}
	return below
}

// blockCache holds blocks of the 2nd bitmap; readers do not lock.
type blockCache struct {
	slots [32]atomic.Pointer[rankedBlock]
}

func (c *blockCache) get(k *Reader, n int64) (*rankedBlock, error) {
	slot := &c.slots[n%int64(len(c.slots))]
	if b := slot.Load(); b != nil && b.n == n {
		return b, nil
	}
	b := &rankedBlock{n: n}
	if err := readFull(k.r, b.bitBlock[:], k.h.l.Bitmap2+n*bitBlockLen); err != nil {
		return nil, err
	}
	b.cut(bitsBelow(k.known, n))
	sum := 0
	for w := range b.below {
		b.below[w] = uint16(sum)
		sum += bits.OnesCount64(b.word(w))
	}
	slot.Store(b)
	return b, nil
}

// descBlockLen is how many descriptors are read at once: 6 KiB.
const descBlockLen = 256

type descBlock struct {
	n    uint64
	desc [descBlockLen]PageDesc
	have int // descriptors that the file has
}

// descCache holds blocks of descriptors; readers do not lock.
type descCache struct {
	slots [64]atomic.Pointer[descBlock]
}

func (c *descCache) get(k *Reader, num uint64) (PageDesc, error) {
	n, i := num/descBlockLen, int(num%descBlockLen)
	slot := &c.slots[n%uint64(len(c.slots))]
	b := slot.Load()
	if b == nil || b.n != n {
		var err error
		if b, err = k.loadDescs(n); err != nil {
			return PageDesc{}, err
		}
		slot.Store(b)
	}
	if i >= b.have {
		return PageDesc{}, vmcore.Truncatedf("page_desc", k.h.l.DescOffset(num), "the file ends at %#x", k.size)
	}
	return b.desc[i], nil
}

func (k *Reader) loadDescs(n uint64) (*descBlock, error) {
	off := k.h.l.DescOffset(n * descBlockLen)
	end := min(k.front, k.size, off+descBlockLen*PageDescLen)
	b := &descBlock{n: n}
	if end <= off {
		return b, nil
	}
	var buf [descBlockLen * PageDescLen]byte
	if err := readFull(k.r, buf[:end-off], off); err != nil {
		return nil, err
	}
	b.have = int(end-off) / PageDescLen
	o, whole := k.h.order(), vmcore.HasBytes(k.r, k.size, off, end-off)
	for i := range b.have {
		// One that did not come whole stays zero, which stands for a missing page.
		if whole || vmcore.HasBytes(k.r, k.size, off+int64(i)*PageDescLen, PageDescLen) {
			b.desc[i] = DecodePageDesc(buf[i*PageDescLen:], o)
		}
	}
	return b, nil
}

// pageCacheBytes is the memory for decoded pages: kernel data structures are read a few bytes at a time, often from
// the same page.
const pageCacheBytes = 4 << 20

type pageCache struct {
	slots []pageSlot
}

type pageSlot struct {
	mu   sync.Mutex
	pfn  mem.PFN
	page []byte // nil: empty
	ok   bool
}

func (c *pageCache) init(pageSize int) { c.slots = make([]pageSlot, pageCacheBytes/pageSize) }

// read copies bytes of frame pfn that begin at byte in. It decodes whole pages that are not cached directly into p.
func (c *pageCache) read(k *Reader, p []byte, pfn mem.PFN, in int) error {
	if len(p) == k.h.PageSize {
		return k.readPage(p, pfn)
	}
	s := &c.slots[uint64(pfn)%uint64(len(c.slots))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ok || s.pfn != pfn {
		if s.page == nil {
			s.page = make([]byte, k.h.PageSize)
		}
		s.ok = false
		if err := k.readPage(s.page, pfn); err != nil {
			return err
		}
		s.pfn, s.ok = pfn, true
	}
	copy(p, s.page[in:])
	return nil
}

// rangesContain reports whether an address lies in one of the sorted ranges.
func rangesContain(ranges []mem.Range, a mem.PhysAddr) bool {
	i := sort.Search(len(ranges), func(i int) bool { return ranges[i].End > a })
	return i < len(ranges) && ranges[i].Contains(a)
}
