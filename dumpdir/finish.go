package dumpdir

import (
	"errors"
	"io"

	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Finish makes a dump complete before its seal: it commits all chunks, and takes the incomplete mark off vmcore-incomplete, durably.
// Then only the seal is left, which reads the whole file for its SHA-256. After a success no chunk is accepted. While pages of
// the plan are missing, or without a plan, Finish only commits, and ok is false. The result has no SHA-256 yet. A kill before
// the seal leaves a dump of which Dump.Finished is true.
func (w *Writer) Finish() (res Result, ok bool, err error) {
	c := w.c
	if err := c.enter(w); err != nil {
		return Result{}, false, err
	}
	defer c.commitMu.Unlock()
	if c.seal != nil {
		return Result{}, false, ErrSealed
	}
	if err := c.commit(); err != nil {
		return Result{}, false, err
	}
	if c.plan == nil || !c.closeComplete() {
		return Result{}, false, nil
	}
	if err := c.writeMark(StateComplete, c.dataEnd); err != nil {
		return Result{}, false, c.fail(err)
	}
	if err := c.vm.Sync(); err != nil {
		return Result{}, false, c.fail(err)
	}
	c.finished = true
	return Result{State: StateComplete, Progress: c.progress(), VMCore: c.path(VMCoreName)}, true, nil
}

// closeComplete lets no chunk in any more if no page is missing, and reports whether that is so. commitMu is held.
func (c *core) closeComplete() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.progress(); p.Missing() > 0 {
		return false
	}
	c.sealing = true
	return true
}

// Finished reports whether the dump was complete at its last commit and is not sealed: vmcore-incomplete has lost its incomplete
// mark, which Finish and a seal take off when no page is missing. The error comes from the file system.
func (d *Dump) Finished() (bool, error) {
	if d.lost || d.jr.seal != nil || d.jr.plan == nil || d.jr.progress().Missing() > 0 {
		return false, nil
	}
	f, err := d.openVMCore()
	if err != nil {
		return false, ignoreNotExist(err)
	}
	defer func() { _ = f.Close() }() // only read
	status := make([]byte, 4)
	if n, err := f.ReadAt(status, kdumpfile.StatusOffset); n < len(status) {
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return false, err
	}
	return d.jr.facts.order().Uint32(status)&kdumpfile.StatusIncomplete == 0, nil
}
