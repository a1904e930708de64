package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"syscall"
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
		if err := c.settle(); err != nil {
			return err
		}
	}
	if err := c.removeTemporary(names); err != nil {
		return err
	}
	if err := c.cleanKept(); err != nil {
		return err
	}
	c.adopt(jr)
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
	if err := c.adoptLog(slices.Contains(names, LogName)); err != nil {
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

// settle makes durable what is adopted. The last writer may have been killed, or have failed, between a write and its
// sync: what it left reads well from the system's cache, and a power cut takes it away after the sender was told that it is
// here. A sync alone does not do: after one that failed, Linux takes the pages for written, so the end of
// the journal, as much as may be appended between two syncs, is written once more.
func (c *core) settle() error {
	size := c.j.size
	tail := make([]byte, min(size, maxBatch))
	if n, err := c.j.f.ReadAt(tail, size-int64(len(tail))); n < len(tail) {
		return err
	}
	if _, err := c.j.f.WriteAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err // without room on a file system that copies on write, what is there has to do
	}
	if err := c.j.f.Sync(); err != nil {
		return err
	}
	return errors.Join(c.fs.SyncDir(c.dir), c.fs.SyncDir(path.Dir(c.dir)))
}

// adopt takes over what the journal says.
func (c *core) adopt(jr *journal) {
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

// manifestOf makes a manifest from what the journal knows.
func manifestOf(j *journal) *Manifest {
	m := &Manifest{Version: ManifestVersion}
	meta := Meta{ID: j.ident.id, Host: j.ident.host}
	if f := j.facts; f != nil {
		meta.Release, meta.Nodename, meta.Machine = f.Utsname.Release, f.Utsname.Nodename, f.Utsname.Machine
		meta.CrashTime = f.Time
	}
	m.setMeta(&meta)
	if m.CrashTime != nil {
		m.StartTime = *m.CrashTime
	}
	if j.plan != nil {
		m.setPlan(j.facts, j.plan)
	}
	return m
}

func readManifest(fsys FS, name string) (*Manifest, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(io.NewSectionReader(f, 0, maxManifestLen+1))
	return m, errors.Join(err, f.Close())
}

// resumeSealed finishes a seal that was interrupted. SHA256SUMS is the last that a seal writes and
// the first that a reopening removes.
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

// adoptLog notes a log that got its name but not its record.
func (c *core) adoptLog(there bool) error {
	if !there {
		c.log = nil
		return nil
	}
	size, sum, err := hashFile(c.fs, c.path(LogName), nil)
	if err != nil {
		return err
	}
	rec := logRecord{size: size, sum: sum}
	if c.log != nil && *c.log == rec {
		return nil
	}
	c.j.add(recLog, rec.encode())
	c.log = &rec
	return c.j.commit()
}

const maxSumsLen = 64 << 10

// readSmall reads a file of at most limit bytes.
func readSmall(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = &DamageError{File: name, Offset: -1, Text: fmt.Sprintf("more than %d bytes", limit)}
	}
	return b, errors.Join(err, f.Close())
}
