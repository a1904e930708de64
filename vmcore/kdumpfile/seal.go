package kdumpfile

import (
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// SealComplete removes the incomplete mark. While pages are missing, it changes nothing, and the error matches
// ErrMissing. After a seal no descriptor can be put.
func (w *Writer) SealComplete() error {
	if w.err != nil {
		return w.err
	}
	if w.Missing() > 0 {
		return fmt.Errorf("%w: %d of %d", ErrMissing, w.Missing(), w.l.Planned)
	}
	return w.seal(false)
}

// SealPartial makes a valid dump of the present pages. It clears the bits of missing pages in the 2nd bitmap,
// compacts the descriptors, and fills the space between them and the page data with zeros. The file stays marked
// incomplete. Page data does not move. Memory is constant. After an interrupted seal the front has to be written
// again (CreateAt with KeepData and this DataOffset).
//
// SealPartial may be used on a dump without missing pages: then only the mark stays.
func (w *Writer) SealPartial() error {
	if w.err != nil {
		return w.err
	}
	if w.Missing() > 0 {
		if err := w.compact(); err != nil {
			return w.fail(err)
		}
	}
	return w.seal(true)
}

func (w *Writer) seal(incomplete bool) error {
	if err := w.writeHeaders(incomplete); err != nil {
		return w.fail(err)
	}
	w.err = ErrSealed
	return nil
}

// compact compacts bitmap and descriptors, one block of the bitmap at a time. It never writes beyond the place where
// it reads.
func (w *Writer) compact() error {
	in := &descReader{w: w}
	out := &descWriter{w: w}
	for n := range w.l.BitmapLen / bitBlockLen {
		if mem.PFN(n)*bitBlockPFN >= w.l.MaxPFN {
			break
		}
		if !w.rank.has(n) {
			continue
		}
		if err := w.compactBlock(n, in, out); err != nil {
			return err
		}
	}
	if err := out.flush(); err != nil {
		return err
	}
	kept := out.next
	if kept != w.present {
		return fmt.Errorf("%d descriptors found in the file, %d were put", kept, w.present)
	}
	if err := zeroFill(w.f, w.l.DescOffset(kept), w.l.DescsEnd()); err != nil {
		return err
	}
	w.l.Planned = kept
	return nil
}

func (w *Writer) compactBlock(n int64, in *descReader, out *descWriter) error {
	if err := w.loadBlock(n); err != nil {
		return err
	}
	changed := false
	for i := w.block.next(0, true); i < bitBlockPFN; i = w.block.next(i+1, true) {
		d, err := in.read()
		if err != nil {
			return err
		}
		if d.Missing() {
			w.block.clearBit(i)
			changed = true
			continue
		}
		if err := out.write(d); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	_, err := w.f.WriteAt(w.block[:], w.l.Bitmap2+n*bitBlockLen)
	return err
}

// descReader reads descriptors in order.
type descReader struct {
	w    *Writer
	buf  []byte // not yet returned
	next uint64 // number of the first one after buf
}

func (r *descReader) read() (PageDesc, error) {
	if len(r.buf) == 0 {
		n := min(r.w.l.Planned-r.next, descBatch)
		r.buf = r.w.buf[:n*PageDescLen]
		if _, err := r.w.f.ReadAt(r.buf, r.w.l.DescOffset(r.next)); err != nil {
			return PageDesc{}, err
		}
		r.next += n
	}
	d := DecodePageDesc(r.buf, r.w.h.order())
	r.buf = r.buf[PageDescLen:]
	return d, nil
}

// descWriter writes descriptors in order.
type descWriter struct {
	w    *Writer
	buf  []byte
	next uint64 // number of the next one to write to the file
}

func (d *descWriter) write(desc PageDesc) error {
	d.buf = desc.Append(d.buf, d.w.h.order())
	if len(d.buf) < descBatch*PageDescLen {
		return nil
	}
	return d.flush()
}

func (d *descWriter) flush() error {
	_, err := d.w.f.WriteAt(d.buf, d.w.l.DescOffset(d.next))
	d.next += uint64(len(d.buf) / PageDescLen)
	d.buf = d.buf[:0]
	return err
}
