package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// Resume takes up an unsealed dump where its journal ends. What the last writer did not
// commit is cut off; the front of vmcore is written again. A sealed dump whose seal was
// interrupted is finished and can be asked for its Result; it takes no chunks unless
// opts.Reopen is set. Errors match ErrNotExist, ErrLocked, ErrUnsupported or are a *DamageError. Of a dump that was sealed, and
// whose journal does not say so or cannot be read, nothing is written: see IsSealedDamage.
func Resume(fsys FS, dir string, opts Options) (*Writer, error) {
	lock, err := fsys.Lock(dir)
	if err != nil {
		return nil, notExist(dir, err)
	}
	return resume(fsys, dir, opts, lock)
}

// notExist turns a missing directory or journal into a missing dump.
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
		return nil // it needs no room, then, on a disk that may be full
	}
	return c.saveManifest()
}

// setState takes over what the journal says.
func (c *core) setState(jr *journal) {
	c.ident, c.log, c.facts, c.plan, c.seal = jr.ident, jr.log, jr.facts, jr.plan, jr.seal
	c.have, c.count, c.dataEnd = jr.have, jr.count, jr.dataEnd
}

// loadManifest reads the manifest; one that is missing or damaged is made again from the journal. good tells
// that the one on disk can stay for now: only its counts may be old.
func (c *core) loadManifest(there bool) (good bool) {
	if there {
		if m, err := readManifest(c.fs, c.path(ManifestName)); err == nil && m.ID == c.ident.id && m.Host == c.ident.host {
			c.m = m
			if c.plan != nil && m.Plan == nil { // cut off between plan and manifest
				m.setPlan(c.facts, c.plan)
				return false
			}
			return m.State == StateArriving
		}
	}
	c.m = manifestOf(&journal{ident: c.ident, facts: c.facts, plan: c.plan})
	return false
}
