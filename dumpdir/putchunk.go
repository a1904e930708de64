package dumpdir

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// PutChunk stores the pages of a chunk. They are durable after the next Commit. It keeps nothing of c. The caller has
// compared the pages with c.RawSum (PageDecoder.Sum). After ErrHaveChunk, ErrOutsidePlan, ErrHavePage, ErrBadChunk and a full disk
// (syscall.ENOSPC, EDQUOT), the writer stays usable and can commit the chunks put before.
func (w *Writer) PutChunk(c *Chunk) error {
	core := w.c
	for {
		core.mu.Lock()
		if !core.batch.full() {
			break
		}
		core.mu.Unlock()
		if err := core.enter(w); err != nil {
			return err
		}
		err := core.commit()
		core.commitMu.Unlock()
		if err != nil {
			return err
		}
	}
	start, err := core.putFor(w, c)
	core.mu.Unlock()
	start()
	return err
}

// putFor is put for the handle w. mu is held. The caller calls start, without it.
func (c *core) putFor(w *Writer, ch *Chunk) (start func(), err error) {
	if err = c.check(w); err == nil {
		err = c.put(ch)
	}
	return c.startSync(), err
}

// startEvery is how many bytes of page data are written before the disk is told to begin with them. Without that, all of them
// would wait for the next fsync, and the disk would rest until then.
const startEvery = 2 << 20

// startSync returns a function that lets the disk begin with what was put since the last call, if that is enough. mu is held. The
// function may have to wait for a busy disk.
func (c *core) startSync() func() {
	f, ok := c.vm.(SyncStarter)
	if !ok || c.dataEnd-c.started < startEvery {
		return func() {}
	}
	off, n := c.started, c.dataEnd-c.started
	c.started = c.dataEnd
	return func() { f.StartSync(off, n) }
}

func (c *core) put(ch *Chunk) error {
	s, err := c.checkNew(ch)
	if err != nil {
		return err
	}
	offset := c.dataEnd
	// The data goes first, so that a concurrent reader never finds a descriptor without its page.
	if len(ch.Data) > 0 {
		if _, err := c.vm.WriteAt(ch.Data, offset); err != nil {
			return c.unwritten(offset, err)
		}
	}
	if c.descs, err = putDescs(c.kw, c.descs, ch.Extents, ch.Pages, offset); err != nil {
		return c.failLocked(err)
	}
	c.dataEnd += s.bytes
	c.batch.add(ch, offset, s)
	return nil
}

// unwritten handles a failed write of a chunk's data at offset. If the disk is full, it cuts off the written part,
// which leaves space for the journal, and the writer stays usable.
func (c *core) unwritten(offset int64, err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return c.failLocked(err)
	}
	if terr := c.vm.Truncate(offset); terr != nil {
		return c.failLocked(errors.Join(err, terr))
	}
	return err
}

// checkNew checks a chunk against its own fields, the plan, and the present pages.
func (c *core) checkNew(ch *Chunk) (s shape, err error) {
	switch {
	case c.sealing || c.seal != nil:
		return s, ErrSealed
	case c.plan == nil:
		return s, ErrNoPlan
	case ch.Seq >= c.plan.Chunks:
		return s, fmt.Errorf("%w: number %d of %d", ErrOutsidePlan, ch.Seq, c.plan.Chunks)
	case c.isHere(ch.Seq):
		return s, fmt.Errorf("%w: %d", ErrHaveChunk, ch.Seq)
	}
	if s, err = ch.check(c.plan.PageSize, c.plan.MaxPFN); err != nil {
		return s, err
	}
	for _, e := range ch.Extents {
		switch err := c.kw.Check(e.Extent); {
		case errors.Is(err, kdumpfile.ErrNotPlanned):
			return s, fmt.Errorf("%w: chunk %d: %w", ErrOutsidePlan, ch.Seq, err)
		case errors.Is(err, kdumpfile.ErrAlreadyPresent):
			return s, fmt.Errorf("%w: chunk %d: %w", ErrHavePage, ch.Seq, err)
		case err != nil:
			return s, c.failLocked(err)
		}
	}
	return s, nil
}

// isHere reports whether a chunk is durable, put, or on its way to the journal.
func (c *core) isHere(seq uint64) bool {
	return c.have.has(seq) || c.batch.set.has(seq) || c.spare.set.has(seq)
}

// putDescs writes the descriptors of a chunk whose data lies at offset. It uses the memory of descs, and returns it or larger memory.
func putDescs(kw *kdumpfile.Writer, descs []kdumpfile.PageDesc, extents []chunk.Extent, pages []PageRecord, offset int64) ([]kdumpfile.PageDesc, error) {
	for _, e := range extents {
		if e.Kind == chunk.Zero {
			if err := kw.PutZero(e.Extent); err != nil {
				return descs, err
			}
			continue
		}
		descs = descs[:0]
		for _, p := range pages[:e.Count] {
			descs = append(descs, kdumpfile.PageDesc{Offset: offset, Size: p.Size, Flags: p.Flags})
			offset += int64(p.Size)
		}
		pages = pages[e.Count:]
		if err := kw.PutPages(e.Extent, descs); err != nil {
			return descs, err
		}
	}
	return descs, nil
}
