package kdumpfile

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// File is what a Writer writes to. Truncate must make new bytes read as zero.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// Errors of a Writer. After a mistake of the caller the file is unchanged and the Writer usable. After an error of
// the file the Writer repeats it.
var (
	// ErrNotPlanned: a page that is not in the 2nd bitmap.
	ErrNotPlanned = errors.New("kdumpfile: page not planned")
	// ErrAlreadyPresent: the page has a descriptor already.
	ErrAlreadyPresent = errors.New("kdumpfile: page already present")
	// ErrBadDesc: an invalid descriptor.
	ErrBadDesc = errors.New("kdumpfile: bad page descriptor")
	// ErrMissing: a file cannot be sealed complete while pages are missing.
	ErrMissing = errors.New("kdumpfile: pages missing")
	// ErrNotRAM: a planned page that is not in the 1st bitmap.
	ErrNotRAM = errors.New("kdumpfile: planned page is not RAM")
	// ErrSealed: the file was sealed.
	ErrSealed = errors.New("kdumpfile: already sealed")
)

// Options of CreateAt.
type Options struct {
	// DataOffset, if not 0, fixes Layout.Data: so the front of a file with page data can be written again for other
	// planned pages. It must be a multiple of the page size and leave room for the descriptors.
	DataOffset int64
	// KeepData keeps the file from Layout.Data on, so that a torn front can be written again. The file reaches at least
	// to the page data. Without KeepData it is emptied first.
	KeepData bool
}

// Writer puts page descriptors into a file that Create or CreateAt laid out.
type Writer struct {
	f       File
	h       Header
	l       Layout
	rank    *rankIndex
	present uint64
	err     error // the first failure of f

	block  bitBlock // block number blockN of the 2nd bitmap
	blockN int64
	buf    []byte // for descBatch descriptors
}

// descBatch is how many descriptors are read or written at a time.
const descBatch = 2048

// Create empties f and lays out a dump: headers that are marked incomplete, both bitmaps, a descriptor with offset 0
// (missing) for each planned page, and the shared zero page. The planned runs must ascend, be disjoint and be RAM.
// They are iterated once. Nothing is synced.
func Create(f File, h *Header, planned iter.Seq[mem.Extent]) (*Writer, error) {
	return CreateAt(f, h, planned, Options{})
}

// CreateAt is Create with options.
func CreateAt(f File, h *Header, planned iter.Seq[mem.Extent], opt Options) (*Writer, error) {
	l, err := h.Layout(0)
	if err != nil {
		return nil, err
	}
	w := &Writer{f: f, h: *h, rank: newRankIndex(h.MaxPFN), blockN: -1, buf: make([]byte, 0, descBatch*PageDescLen)}
	if !opt.KeepData {
		if err := f.Truncate(0); err != nil {
			return nil, err
		}
		if err := f.Truncate(l.Descs); err != nil {
			return nil, err
		}
	}
	if err := w.layBitmaps(l, planned, opt); err != nil {
		return nil, err
	}
	if w.l, err = h.layoutAt(w.rank.total, opt.DataOffset); err != nil {
		return nil, err
	}
	return w, w.layRest(opt)
}

// layoutAt is Layout with a fixed offset of the data, unless data is 0.
func (h *Header) layoutAt(planned uint64, data int64) (Layout, error) {
	l, err := h.Layout(planned)
	if err != nil || data == 0 {
		return l, err
	}
	if data < l.Data || data%int64(l.PageSize) != 0 {
		return l, fmt.Errorf("kdumpfile: data offset %#x is not a block at or after %#x", data, l.Data)
	}
	l.Data = data
	return l, nil
}

// layBitmaps writes both bitmaps; into an empty file only bytes that are not zero.
func (w *Writer) layBitmaps(l Layout, planned iter.Seq[mem.Extent], opt Options) error {
	ram := RAMExtents(w.h.RAM, vmcore.PageShift(l.PageSize), l.MaxPFN)
	put := func(at int64) func(int64, *bitBlock) error {
		return func(n int64, b *bitBlock) error {
			_, err := w.f.WriteAt(b[:], at+n*bitBlockLen)
			return err
		}
	}
	if opt.KeepData {
		if err := zeroFill(w.f, l.Bitmap1, l.Descs); err != nil {
			return err
		}
	}
	if _, err := eachBitBlock(l.MaxPFN, ram, put(l.Bitmap1)); err != nil {
		return err
	}
	var outside error
	_, err := eachBitBlock(l.MaxPFN, within(planned, ram, &outside), func(n int64, b *bitBlock) error {
		w.rank.add(n, b)
		return put(l.Bitmap2)(n, b)
	})
	return errors.Join(outside, err)
}

// within yields the runs until one is not completely in ram, which ascends; then it sets *err.
func within(runs, ram iter.Seq[mem.Extent], err *error) iter.Seq[mem.Extent] {
	return func(yield func(mem.Extent) bool) {
		next, stop := iter.Pull(merged(ram))
		defer stop()
		have, ok := next()
		for e := range runs {
			for ok && have.End() <= e.Start {
				have, ok = next()
			}
			if e.Count > 0 && (!ok || e.Start < have.Start || e.End() > have.End()) {
				*err = fmt.Errorf("%w: %v", ErrNotRAM, e)
				return
			}
			if !yield(e) {
				return
			}
		}
	}
}

// merged merges runs that touch.
func merged(runs iter.Seq[mem.Extent]) iter.Seq[mem.Extent] {
	return func(yield func(mem.Extent) bool) {
		var cur mem.Extent
		for e := range runs {
			switch {
			case cur.Count == 0:
				cur = e
			case cur.End() == e.Start:
				cur.Count += e.Count
			default:
				if !yield(cur) {
					return
				}
				cur = e
			}
		}
		if cur.Count > 0 {
			yield(cur)
		}
	}
}

// layRest writes everything else, after the number of pages is known.
func (w *Writer) layRest(opt Options) error {
	if opt.KeepData {
		if err := zeroFill(w.f, w.l.Descs, w.l.FirstPage()); err != nil {
			return err
		}
	} else if err := w.f.Truncate(w.l.FirstPage()); err != nil {
		return err
	}
	return w.writeHeaders(true)
}

func (w *Writer) writeHeaders(incomplete bool) error {
	front, err := w.h.EncodeFront(incomplete)
	if err != nil {
		return err
	}
	_, err = w.f.WriteAt(front, 0)
	return err
}

// Layout returns the places of the file.
func (w *Writer) Layout() Layout { return w.l }

// Missing returns the number of pages without a descriptor.
func (w *Writer) Missing() uint64 { return w.l.Planned - w.present }

// PutPages writes the descriptors of the frames of e in order. The stored bytes may be written later, but then a
// concurrent reader would find descriptors without pages. All frames must be planned (ErrNotPlanned) and missing
// (ErrAlreadyPresent), and the descriptors must be valid and point into the page data (ErrBadDesc); otherwise nothing
// is written.
func (w *Writer) PutPages(e mem.Extent, descs []PageDesc) error {
	if uint64(len(descs)) != e.Count {
		return fmt.Errorf("%w: %d descriptors for %v", ErrBadDesc, len(descs), e)
	}
	for i, d := range descs {
		if err := w.checkDesc(d); err != nil {
			return fmt.Errorf("%w: pfn %d: %w", ErrBadDesc, e.Start+mem.PFN(i), err)
		}
	}
	return w.put(e, func(i uint64) PageDesc { return descs[i] })
}

// PutZero writes descriptors for zero pages, which share one page of data. Errors are those of PutPages.
func (w *Writer) PutZero(e mem.Extent) error {
	zero := w.l.ZeroDesc()
	return w.put(e, func(uint64) PageDesc { return zero })
}

func (w *Writer) checkDesc(d PageDesc) error {
	if d == w.l.ZeroDesc() {
		return nil
	}
	if d.Offset < w.l.FirstPage() {
		return fmt.Errorf("offset %#x is before the page data at %#x", d.Offset, w.l.FirstPage())
	}
	return d.check(w.l.PageSize)
}

func (w *Writer) put(e mem.Extent, desc func(i uint64) PageDesc) error {
	first, err := w.admit(e)
	if err != nil {
		return err
	}
	for done := uint64(0); done < e.Count; {
		n := min(e.Count-done, descBatch)
		b := w.buf[:0]
		for i := range n {
			b = desc(done+i).Append(b, w.h.order())
		}
		if _, err := w.f.WriteAt(b, w.l.DescOffset(first+done)); err != nil {
			return w.fail(err)
		}
		done += n
	}
	w.present += e.Count
	return nil
}

// Check reports whether PutPages would accept the frames of e: all are planned and none is present. Errors are those
// of PutPages. A caller with several related runs checks all before it puts the first.
func (w *Writer) Check(e mem.Extent) error {
	_, err := w.admit(e)
	return err
}

// admit is Check. It returns the number of the first frame's descriptor.
func (w *Writer) admit(e mem.Extent) (first uint64, err error) {
	if w.err != nil {
		return 0, w.err
	}
	if !e.Valid(w.l.MaxPFN) {
		return 0, fmt.Errorf("%w: %v of max_mapnr %d", ErrNotPlanned, e, w.l.MaxPFN)
	}
	if first, err = w.locate(e); err != nil {
		return 0, err
	}
	return first, w.checkMissing(e, first)
}

// locate checks that all frames of e are planned and returns the number of the first frame's descriptor. The others
// follow it.
func (w *Writer) locate(e mem.Extent) (first uint64, err error) {
	for pfn := e.Start; pfn < e.End(); {
		n := blockOf(pfn)
		if err := w.loadBlock(n); err != nil {
			return 0, err
		}
		lo := uint64(pfn % bitBlockPFN)
		hi := min(lo+uint64(e.End()-pfn), bitBlockPFN)
		if gap := w.block.next(lo, false); gap < hi {
			return 0, fmt.Errorf("%w: pfn %d", ErrNotPlanned, uint64(pfn)+gap-lo)
		}
		if pfn == e.Start {
			first = w.rank.before(n) + w.block.count(lo)
		}
		pfn += mem.PFN(hi - lo)
	}
	return first, nil
}

func (w *Writer) loadBlock(n int64) error {
	if w.blockN == n {
		return nil
	}
	w.blockN = -1
	if _, err := w.f.ReadAt(w.block[:], w.l.Bitmap2+n*bitBlockLen); err != nil {
		return w.fail(err)
	}
	w.blockN = n
	return nil
}

func (w *Writer) checkMissing(e mem.Extent, first uint64) error {
	for done := uint64(0); done < e.Count; {
		n := min(e.Count-done, descBatch)
		b := w.buf[:n*PageDescLen]
		if _, err := w.f.ReadAt(b, w.l.DescOffset(first+done)); err != nil {
			return w.fail(err)
		}
		for i := range n {
			if d := DecodePageDesc(b[i*PageDescLen:], w.h.order()); !d.Missing() {
				return fmt.Errorf("%w: pfn %d", ErrAlreadyPresent, uint64(e.Start)+done+i)
			}
		}
		done += n
	}
	return nil
}

func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = fmt.Errorf("kdumpfile: %w", err)
	}
	return w.err
}

// zeroFill writes zeros from offset from up to offset to, which is in the file. It leaves holes.
func zeroFill(f File, from, to int64) error {
	zero := make([]byte, 64<<10)
	for {
		at, ok := vmcore.NextData(f, to, from)
		if !ok {
			return nil
		}
		n := min(int64(len(zero)), to-at)
		if _, err := f.WriteAt(zero[:n], at); err != nil {
			return err
		}
		from = at + n
	}
}
