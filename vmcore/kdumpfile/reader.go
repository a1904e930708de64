package kdumpfile

import (
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// Reader reads a kdump-compressed file. It is a vmcore.Image and safe for concurrent use.
type Reader struct {
	r    io.ReaderAt
	size int64

	h     *fileHeader
	info  *vmcore.Info
	ram   []mem.Range
	rank  *rankIndex // of the 2nd bitmap
	first uint64     // bits of the 2nd bitmap below the piece of a split set
	known mem.PFN    // where the known part of the 2nd bitmap ends: the descriptors of later pages are unknown
	front int64      // end of the descriptors: no page data before it
	shift uint

	bits  blockCache
	descs descCache
	pages pageCache
	raw   sync.Pool // *[]byte of a page, for stored bytes
}

var (
	_ vmcore.Image   = (*Reader)(nil)
	_ vmcore.PageRun = (*Reader)(nil)
	_ vmcore.Holder  = (*Reader)(nil)
)

// New reads the headers and both bitmaps of a file of size bytes. Errors match vmcore.ErrUnknownFormat,
// ErrUnsupported, ErrCorrupt or ErrTruncated. New opens a file that ends after its bitmaps. If r is a vmcore.Sparse,
// bytes that it does not have are missing like those beyond the end of a file; of a bitmap with a hole, New uses the
// part before the hole. The caller keeps ownership of r, which must stay readable.
func New(r io.ReaderAt, size int64) (*Reader, error) {
	h, err := decodeHeaders(r, size)
	if err != nil {
		return nil, err
	}
	k := &Reader{r: r, size: size, h: h, shift: vmcore.PageShift(h.PageSize)}
	k.raw.New = func() any { b := make([]byte, h.PageSize); return &b }
	k.pages.init(h.PageSize)
	k.info = h.vmcoreInfo(r, size)
	k.findHoles()
	if err := k.scanRAM(); err != nil {
		return nil, err
	}
	if err := k.scanPages(); err != nil {
		return nil, err
	}
	k.h.RAM = k.ram
	if k.front > size {
		k.info.Lackf("the file ends at %#x, within its page descriptors (%#x to %#x)", size, h.l.Descs, k.front)
	}
	return k, nil
}

// Close does nothing: the caller of New owns the file. It makes a Reader a vmcore.Image.
func (k *Reader) Close() error { return nil }

// Info returns what the headers and notes say.
func (k *Reader) Info() *vmcore.Info { return k.info }

// RAM returns the runs of the 1st bitmap.
func (k *Reader) RAM() []mem.Range { return k.ram }

// Header returns the headers for a Writer, with RAM. The caller must not change it.
func (k *Reader) Header() *Header { return &k.h.Header }

// Split returns the frames whose descriptors this file has, if it is one piece of a --split set.
func (k *Reader) Split() (mem.Extent, bool) {
	return mem.Between(k.h.start, k.h.end), k.h.split
}

// scanPages builds the rank index of the 2nd bitmap.
func (k *Reader) scanPages() error {
	k.rank = newRankIndex(k.h.MaxPFN)
	var below, upTo uint64
	err := k.eachBlock(k.h.l.Bitmap2, k.known, func(n int64, b *bitBlock) error {
		below += b.count(bitsBelow(k.h.start, n))
		upTo += b.count(bitsBelow(k.h.end, n))
		k.rank.add(n, b)
		return nil
	})
	k.first = below
	k.h.l.Planned = upTo - below
	k.front = k.h.l.DescsEnd()
	k.h.l.Data = k.front
	return err
}

// bitsBelow returns how many bits of block n lie below frame pfn.
func bitsBelow(pfn mem.PFN, n int64) uint64 {
	start := blockStart(n)
	if pfn <= start {
		return 0
	}
	return min(uint64(pfn-start), bitBlockPFN)
}

// eachBlock calls fn for each block of the bitmap at off that has a set bit below limit. It skips holes of the file.
func (k *Reader) eachBlock(off int64, limit mem.PFN, fn func(n int64, b *bitBlock) error) error {
	const batch = 64
	buf := make([]byte, batch*bitBlockLen)
	blocks := blockOf(limit + bitBlockPFN - 1)
	for n := int64(0); n < blocks; n += batch {
		at, ok := vmcore.NextData(k.r, k.size, off+n*bitBlockLen)
		if n = (at - off) / bitBlockLen; !ok || n >= blocks {
			return nil
		}
		b := buf[:min(batch, blocks-n)*bitBlockLen]
		if err := readFull(k.r, b, off+n*bitBlockLen); err != nil {
			return err
		}
		for i := int64(0); len(b) > 0; i++ {
			block := (*bitBlock)(b)
			b = b[bitBlockLen:]
			block.cut(bitsBelow(limit, n+i))
			if block.empty() {
				continue
			}
			if err := fn(n+i, block); err != nil {
				return err
			}
		}
	}
	return nil
}

var errStop = errors.New("stop")

// runs yields the runs of set bits below limit of the bitmap at off, inside within if that is not nil. An error comes
// last.
func (k *Reader) runs(off int64, limit mem.PFN, within *mem.Extent) iter.Seq2[mem.Extent, error] {
	return func(yield func(mem.Extent, error) bool) {
		var cur mem.Extent
		emit := func() bool {
			e := clip(cur, within)
			return e.Count == 0 || yield(e, nil)
		}
		err := k.eachBlock(off, limit, func(n int64, b *bitBlock) error {
			for e := range b.runs(n) {
				if cur.Count > 0 && cur.End() == e.Start {
					cur.Count += e.Count
					continue
				}
				if !emit() {
					return errStop
				}
				cur = e
			}
			return nil
		})
		switch {
		case errors.Is(err, errStop):
		case err != nil:
			yield(mem.Extent{}, err)
		default:
			emit()
		}
	}
}

func clip(e mem.Extent, within *mem.Extent) mem.Extent {
	if within == nil {
		return e
	}
	return e.Intersect(*within)
}

// Pages yields the runs of the 2nd bitmap, of a split set only those of this piece.
func (k *Reader) Pages() iter.Seq2[mem.Extent, error] {
	piece, _ := k.Split()
	return k.runs(k.h.l.Bitmap2, k.known, &piece)
}

// Desc returns the descriptor of frame pfn and its byte offset in the file. Errors
// match vmcore.ErrExcluded, ErrNotPresent or, when the file ends before the
// descriptor, ErrTruncated. The descriptor itself is not checked.
func (k *Reader) Desc(pfn mem.PFN) (d PageDesc, off int64, err error) {
	n := blockOf(pfn)
	i := uint64(pfn % bitBlockPFN)
	if pfn >= k.h.MaxPFN {
		return d, 0, vmcore.ErrNotPresent
	}
	b, err := k.bits.get(k, n)
	if err != nil {
		return d, 0, err
	}
	if pfn >= k.known && rangesContain(k.ram, pfn.Addr(k.shift)) {
		return d, 0, vmcore.ErrIncomplete
	}
	if !b.has(i) || pfn < k.h.start || pfn >= k.h.end {
		return d, 0, k.absent(pfn)
	}
	num := k.rank.before(n) + b.rank(i) - k.first
	off = k.h.l.DescOffset(num)
	d, err = k.descs.get(k, num)
	return d, off, err
}

// absent distinguishes an excluded page from a hole.
func (k *Reader) absent(pfn mem.PFN) error {
	if rangesContain(k.ram, pfn.Addr(k.shift)) {
		return vmcore.ErrExcluded
	}
	return vmcore.ErrNotPresent
}

// place checks that d points at page data in the file.
func (k *Reader) place(d PageDesc, off int64) error {
	switch {
	case d.Missing():
		return vmcore.ErrIncomplete
	case d.Offset < k.front:
		return vmcore.Corruptf("page_desc", off, "it points at %#x, before the page data (%#x)", d.Offset, k.front)
	}
	if err := d.check(k.h.PageSize); err != nil {
		return vmcore.Corruptf("page_desc", off, "%v", err)
	}
	if d.Offset > k.size || int64(d.Size) > k.size-d.Offset {
		return vmcore.Truncatedf("page_desc", off, "it points at %d bytes at %#x, the file ends at %#x", d.Size, d.Offset, k.size)
	}
	if !vmcore.HasBytes(k.r, k.size, d.Offset, int64(d.Size)) {
		return vmcore.ErrIncomplete
	}
	return nil
}

// ReadStored returns the stored form of frame pfn and its descriptor, in buf if that has room for a page. Errors are
// those of ReadPage.
func (k *Reader) ReadStored(buf []byte, pfn mem.PFN) ([]byte, PageDesc, error) {
	d, off, err := k.Desc(pfn)
	if err == nil {
		err = k.place(d, off)
	}
	if err != nil {
		return nil, d, k.addrError(pfn, err)
	}
	if cap(buf) < int(d.Size) {
		buf = make([]byte, k.h.PageSize)
	}
	buf = buf[:d.Size]
	return buf, d, readFull(k.r, buf, d.Offset)
}

// ReadPage implements vmcore.Image.
func (k *Reader) ReadPage(p []byte, pfn mem.PFN) error {
	if len(p) != k.h.PageSize {
		return vmcore.ErrPageBuffer
	}
	if err := k.readPage(p, pfn); err != nil {
		return k.addrError(pfn, err)
	}
	return nil
}

func (k *Reader) addrError(pfn mem.PFN, err error) error {
	return &vmcore.AddrError{Addr: pfn.Addr(k.shift), Err: err}
}

func (k *Reader) readPage(p []byte, pfn mem.PFN) error {
	d, off, err := k.Desc(pfn)
	if err != nil {
		return err
	}
	if err := k.place(d, off); err != nil {
		return err
	}
	if Codec(d.Flags) == Raw {
		return readFull(k.r, p, d.Offset)
	}
	buf := k.raw.Get().(*[]byte)
	defer k.raw.Put(buf)
	stored := (*buf)[:d.Size]
	if err := readFull(k.r, stored, d.Offset); err != nil {
		return err
	}
	return DecodePage(p, stored, d.Flags)
}

// ReadPages implements vmcore.PageRun.
func (k *Reader) ReadPages(p []byte, pfn mem.PFN) error {
	if len(p)%k.h.PageSize != 0 {
		return vmcore.ErrPageBuffer
	}
	for ; len(p) > 0; pfn++ {
		if err := k.ReadPage(p[:k.h.PageSize], pfn); err != nil {
			return err
		}
		p = p[k.h.PageSize:]
	}
	return nil
}

// ReadPhys implements vmcore.Reader. It reads parts of pages through a small cache.
func (k *Reader) ReadPhys(p []byte, a mem.PhysAddr) error {
	for len(p) > 0 {
		pfn, in := a.PFN(k.shift), int(uint64(a)&uint64(k.h.PageSize-1)) //nolint:gosec // below the page size
		part := p[:min(len(p), k.h.PageSize-in)]
		if err := k.pages.read(k, part, pfn, in); err != nil {
			return &vmcore.AddrError{Addr: a, Err: err}
		}
		p = p[len(part):]
		if a += mem.PhysAddr(len(part)); a == 0 && len(p) > 0 {
			return &vmcore.AddrError{Addr: a - 1, Err: vmcore.ErrNotPresent}
		}
	}
	return nil
}
