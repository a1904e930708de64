package dumpdir

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Result is the result of a seal.
type Result struct {
	State    State
	Reason   string // why pages are missing; empty if complete
	Progress Progress
	SHA256   string // of vmcore, in hexadecimal; empty if there is none
	VMCore   string // name of the vmcore file, with dir; empty if there is none
}

// Seal commits and seals the dump. It is complete if every page of the plan is present, log-only without a plan, else
// partial with reason; without a reason, the error matches ErrMissingPages. Seal may be called again, and after a
// kill Resume finishes it. Most of the time goes into reading vmcore for its SHA-256. If ctx ends that, the writer
// has failed, and the dump can be resumed as before the call.
func (w *Writer) Seal(ctx context.Context, reason string) (Result, error) {
	return w.seal(ctx, reason, false)
}

// SealPartial is Seal for a plan that is not the whole dump: a dump with pages is partial even if none of the plan is
// missing. The reason must not be empty.
func (w *Writer) SealPartial(ctx context.Context, reason string) (Result, error) {
	return w.seal(ctx, reason, true)
}

func (w *Writer) seal(ctx context.Context, reason string, partial bool) (Result, error) {
	c := w.c
	if err := c.enter(w); err != nil {
		return Result{}, err
	}
	defer c.commitMu.Unlock()
	if c.seal == nil {
		if err := c.sealNow(ctx, reason, partial); err != nil {
			return Result{}, err
		}
		if err := c.finishSeal(); err != nil {
			return Result{}, c.fail(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.result(), nil
}

// Result returns the result of the seal; ok is false for an unsealed dump.
func (w *Writer) Result() (res Result, ok bool) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if w.c.seal == nil {
		return Result{}, false
	}
	return w.c.result(), true
}

func (c *core) result() Result {
	r := Result{State: c.seal.state, Reason: c.seal.reason, Progress: c.progress()}
	if c.plan != nil {
		r.SHA256, r.VMCore = hex.EncodeToString(c.seal.sum[:]), c.path(VMCoreName)
	}
	return r
}

// sealNow does everything up to the seal record of the journal. commitMu is held.
func (c *core) sealNow(ctx context.Context, reason string, partial bool) error {
	seal, err := c.beginSeal(reason, partial)
	if err != nil {
		return errors.Join(err, c.commit())
	}
	if c.plan != nil {
		if err := c.sealFront(ctx, seal); err != nil {
			return c.fail(err)
		}
	}
	seal.time = time.Now().Unix()
	c.j.add(recSeal, seal.encode())
	if err := c.j.commit(); err != nil {
		return c.fail(err)
	}
	c.mu.Lock()
	c.seal = seal
	c.mu.Unlock()
	return nil
}

// beginSeal decides the state of the dump from the chunks that were put. After its success no chunk is accepted. commitMu is held,
// so no commit is under way.
func (c *core) beginSeal(reason string, partial bool) (*sealRecord, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sealing = true
	c.dropBuilder()
	p := c.progress()
	p.Present += c.batch.count.pages
	seal := &sealRecord{state: StateComplete, present: p.Present, size: p.Bytes}
	switch {
	case c.plan == nil:
		seal.state, seal.reason = StateLogOnly, clean(reason, maxReason)
	case p.Missing() > 0 && reason == "":
		c.sealing = false
		return nil, fmt.Errorf("%w: %d of %d", ErrMissingPages, p.Missing(), p.Planned)
	case p.Missing() > 0 || partial && !c.finished:
		seal.state, seal.reason = StatePartial, clean(reason, maxReason)
	}
	return seal, nil
}

// sealFront writes the final front of vmcore, and reads the file back.
func (c *core) sealFront(ctx context.Context, seal *sealRecord) error {
	if !c.finished {
		if err := c.writeMark(seal.state, seal.size); err != nil {
			return err
		}
	}
	return c.readBack(ctx, seal)
}

// writeMark writes the front of vmcore for the state of the dump, and cuts the file at size: a failed put may have left bytes behind
// the last chunk.
func (c *core) writeMark(state State, size int64) error {
	write := c.kw.SealComplete
	if state == StatePartial {
		write = c.kw.SealPartial
	}
	if err := write(); err != nil {
		return err
	}
	return c.vm.Truncate(size)
}

// readBack makes vmcore and the records of its last chunks durable, and computes the SHA-256 of vmcore from what it reads. If this
// machine has the file in its page cache, the read gets the same bytes before the fsync as after it, so both go at a time.
func (c *core) readBack(ctx context.Context, seal *sealRecord) error {
	synced := make(chan error, 1)
	go func() { synced <- c.syncAll() }()
	if _, cached := c.vm.(Forgetter); !cached {
		if err := <-synced; err != nil {
			return err
		}
		synced <- nil
	}
	_, sum, err := hashReader(c.vm, ctx.Err, nil)
	seal.sum = sum
	return errors.Join(<-synced, err)
}

// syncAll commits the chunks that were put, or only syncs vmcore if all are committed. commitMu is held.
func (c *core) syncAll() error {
	c.mu.Lock()
	put, vm := len(c.batch.seqs) > 0, c.vm
	c.mu.Unlock()
	if put {
		return c.commit()
	}
	return vm.Sync()
}

// finishSeal brings names, manifest and sums in line with the seal record. It can be repeated from any point.
// commitMu is held.
func (c *core) finishSeal() error {
	if c.vm != nil {
		vm := c.vm
		c.mu.Lock()
		c.vm, c.kw = nil, nil
		c.mu.Unlock()
		if err := vm.Close(); err != nil {
			return err
		}
	}
	if err := c.j.giveBack(); err != nil {
		return err
	}
	if err := c.nameVMCore(); err != nil {
		return err
	}
	if err := c.saveManifest(); err != nil {
		return err
	}
	return c.writeSums()
}

// nameVMCore renames the sealed file, unless it has its name.
func (c *core) nameVMCore() error {
	if c.plan == nil {
		return nil
	}
	err := c.fs.Rename(c.path(IncompleteName), c.path(VMCoreName))
	if err := ignoreNotExist(err); err != nil {
		return err
	}
	return c.fs.SyncDir(c.dir)
}

// resumeSealed finishes an interrupted seal. A seal writes SHA256SUMS last, and a reopening removes it first.
func (c *core) resumeSealed(names []string) error {
	c.sealing = true
	if slices.Contains(names, SumsName) && !slices.Contains(names, IncompleteName) {
		return c.sumKept()
	}
	return c.finishSeal()
}

// reopen takes back a partial or log-only seal.
func (c *core) reopen(names []string) error {
	if slices.Contains(names, SumsName) {
		if err := c.fs.Remove(c.path(SumsName)); err != nil {
			return err
		}
		if err := c.fs.SyncDir(c.dir); err != nil {
			return err
		}
	}
	c.j.add(recReopen, nil)
	if err := c.j.commit(); err != nil {
		return err
	}
	c.seal = nil
	return nil
}
