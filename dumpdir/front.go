package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// layOut creates vmcore-incomplete from the stored plan.
func (c *core) layOut() error {
	vm, err := c.fs.Create(c.path(IncompleteName))
	if err != nil {
		return err
	}
	c.vm = vm
	jr, err := c.loadOwn()
	if err != nil {
		return err
	}
	var runsErr error
	kw, err := kdumpfile.CreateAt(&zeroSaver{File: vm}, c.facts.header(), jr.runs(&runsErr), kdumpfile.Options{DataOffset: c.plan.DataOffset})
	if err := errors.Join(runsErr, err); err != nil {
		return err
	}
	if !c.plan.Sparse {
		if err := reserve(vm, kw.Layout(), c.facts.RAM); err != nil {
			return err
		}
	}
	if err := c.j.reserve(0); err != nil {
		return err
	}
	c.kw = kw
	return c.fs.SyncDir(c.dir)
}

// resumeVMCore brings vmcore-incomplete in line with the journal: its name, nothing behind the last chunk, zeros
// between chunks, and a new front.
func (c *core) resumeVMCore(jr *journal, names []string) error {
	if !slices.Contains(names, IncompleteName) {
		if !slices.Contains(names, VMCoreName) {
			return c.layOut()
		}
		if err := c.fs.Rename(c.path(VMCoreName), c.path(IncompleteName)); err != nil {
			return err
		}
	}
	vm, err := c.fs.OpenRW(c.path(IncompleteName))
	if err != nil {
		return err
	}
	c.vm = vm
	if err := vm.Truncate(c.dataEnd); err != nil {
		return err
	}
	if c.kw, err = rebuildFront(vm, jr, kdumpfile.Options{DataOffset: c.plan.DataOffset, KeepData: true}); err != nil {
		return err
	}
	if err := reserve(vm, c.kw.Layout(), c.facts.RAM); err != nil {
		return err
	}
	return c.fs.SyncDir(c.dir)
}

// rebuildFront writes the front of vm again from the journal, marked incomplete. Page data does not move.
func rebuildFront(vm kdumpfile.File, jr *journal, opt kdumpfile.Options) (*kdumpfile.Writer, error) {
	var runsErr error
	front := &zeroSaver{File: vm}
	kw, err := kdumpfile.CreateAt(front, jr.facts.header(), jr.runs(&runsErr), opt)
	if err := errors.Join(runsErr, err); err != nil {
		return nil, err
	}
	end := jr.plan.firstPage()
	var descs []kdumpfile.PageDesc
	err = jr.chunks(func(r *chunkRecord) (err error) {
		if r.offset > end {
			if err := zeroRange(vm, end, r.offset); err != nil {
				return err
			}
		}
		end = r.end()
		descs, err = putDescs(kw, descs, r.extents, r.pages, r.offset)
		if errors.Is(err, kdumpfile.ErrNotPlanned) || errors.Is(err, kdumpfile.ErrAlreadyPresent) {
			return &DamageError{File: JournalName, Offset: -1, Text: fmt.Sprintf("chunk %d: %v", r.seq, err)}
		}
		return err
	})
	return kw, err
}

// zeroSaver skips writes of zeros where the file is zero. So holes stay holes: bitmaps of a machine with few pages at
// high addresses, and descriptors of pages that never come.
type zeroSaver struct {
	kdumpfile.File
	buf []byte
}

// NextData implements vmcore.Holes.
func (z *zeroSaver) NextData(off int64) (at int64, ok bool) {
	if h, isHoles := z.File.(vmcore.Holes); isHoles {
		return h.NextData(off)
	}
	return off, true
}

func (z *zeroSaver) WriteAt(p []byte, off int64) (int, error) {
	if vmcore.IsZero(p) {
		if len(z.buf) < len(p) {
			z.buf = make([]byte, len(p))
		}
		if n, err := z.ReadAt(z.buf[:len(p)], off); err == nil && n == len(p) && vmcore.IsZero(z.buf[:n]) {
			return n, nil
		}
	}
	return z.File.WriteAt(p, off)
}

func zeroRange(w io.WriterAt, from, to int64) error {
	zero := make([]byte, 64<<10)
	for from < to {
		n := min(int64(len(zero)), to-from)
		if _, err := w.WriteAt(zero[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// reserve allocates what a seal writes: headers, the bitmaps where there is RAM, and the descriptors. So a dump can be
// sealed on a full disk. The rest of the bitmaps stays a hole: a machine may have its RAM at very high addresses.
func reserve(vm File, l kdumpfile.Layout, ram []mem.Range) error {
	a, ok := vm.(Allocator)
	if !ok {
		return nil
	}
	if err := a.Allocate(0, l.Bitmap1); err != nil {
		return err
	}
	for off, n := range kdumpfile.BitmapParts(ram, l.PageSize, l.MaxPFN) {
		if err := errors.Join(a.Allocate(l.Bitmap1+off, n), a.Allocate(l.Bitmap2+off, n)); err != nil {
			return err
		}
	}
	return a.Allocate(l.Descs, l.FirstPage()-l.Descs)
}
