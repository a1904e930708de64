package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// Resume continues an unsealed dump at the end of its journal. It cuts off what the last writer did not commit, and
// writes the front of vmcore again. If a seal was interrupted, Resume finishes it; the writer then has a Result and
// accepts no chunks, unless opts.Reopen is set. Errors match ErrNotExist, ErrLocked, ErrUnsupported or are a
// *DamageError. Resume writes nothing to a dump that was sealed and whose journal cannot be read or does not say so:
// see IsSealedDamage.
func Resume(fsys FS, dir string, opts Options) (*Writer, error) {
	lock, err := fsys.Lock(dir)
	if err != nil {
		return nil, notExist(dir, err)
	}
	return resume(fsys, dir, opts, lock)
}

// notExist returns ErrNotExist for a missing directory or journal.
func notExist(dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", dir, ErrNotExist)
	}
	return err
}

// resume is Resume with the lock taken. It owns the lock.
func resume(fsys FS, dir string, opts Options, lock io.Closer) (*Writer, error) {
	c := newCore(fsys, dir, opts, lock)
	if err := c.resume(); err != nil {
		return nil, errors.Join(err, c.release())
	}
	return c.newHandle(), nil
}

func (c *core) resume() error {
	names, err := c.fs.ReadDir(c.dir)
	if err != nil {
		return err
	}
	if !slices.Contains(names, JournalName) {
		if err := c.lostJournal(names); err != nil {
			return err
		}
		return fmt.Errorf("%s: %w", c.dir, ErrNotExist)
	}
	jr, err := c.recoverJournal(names)
	if err != nil {
		return err
	}
	if jr.seal == nil || !slices.Contains(names, SumsName) {
		if err := c.syncRecovered(); err != nil {
			return err
		}
	}
	if err := c.removeTemporary(names); err != nil {
		return err
	}
	if err := c.cleanKept(); err != nil {
		return err
	}
	c.setState(jr)
	good := c.loadManifest(slices.Contains(names, ManifestName))
	if c.seal != nil && (c.seal.state == StateComplete || !c.opts.Reopen) {
		return c.resumeSealed(names)
	}
	if c.seal != nil {
		if err := c.reopen(names); err != nil {
			return err
		}
		jr.seal = nil
	}
	if err := c.recordLog(slices.Contains(names, LogName)); err != nil {
		return err
	}
	if c.plan != nil {
		if err := c.resumeVMCore(jr, names); err != nil {
			return err
		}
	}
	if good {
		return nil // then it needs no space on a disk that may be full
	}
	return c.saveManifest()
}

// setState takes the state of the journal.
func (c *core) setState(jr *journal) {
	c.ident, c.log, c.facts, c.plan, c.seal = jr.ident, jr.log, jr.facts, jr.plan, jr.seal
	c.have, c.count, c.dataEnd = jr.have, jr.count, jr.dataEnd
}

// loadManifest reads the manifest, or makes it from the journal if it is missing or damaged. good says that the file
// can stay for now: only its counts may be old.
func (c *core) loadManifest(there bool) (good bool) {
	if there {
		if m, err := readManifest(c.fs, c.path(ManifestName)); err == nil && m.ID == c.ident.id && m.Host == c.ident.host {
			c.m = m
			if c.plan != nil && m.Plan == nil { // the last writer stopped between plan and manifest
				m.setPlan(c.facts, c.plan)
				return false
			}
			return m.State == StateArriving
		}
	}
	c.m = manifestOf(&journal{ident: c.ident, facts: c.facts, plan: c.plan})
	return false
}
