package dumpdir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// SaveFile replaces a small file of a directory durably: under its name with .tmp first, so that
// the name always stands for a whole file. A name has one writer at a time, which callers see to.
func SaveFile(fsys FS, dir, name string, content []byte) error {
	tmp := path.Join(dir, name+tmpSuffix)
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, path.Join(dir, name)); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// saveManifest brings the manifest up to date, makes it durable and tells. commitMu is held, or
// nobody else has the core yet.
func (c *core) saveManifest() error {
	c.mu.Lock()
	c.fillManifest()
	m := c.m.clone()
	c.mu.Unlock()
	b, err := m.encode()
	if err != nil {
		return c.fail(err)
	}
	if err := SaveFile(c.fs, c.dir, ManifestName, b); err != nil {
		return c.fail(err)
	}
	if c.opts.Changed != nil {
		c.opts.Changed(m)
	}
	return nil
}

// fillManifest fills in what the journal knows. mu is held.
func (c *core) fillManifest() {
	pageSize := 0
	if c.plan != nil {
		pageSize = c.plan.PageSize
	}
	c.m.setCounts(&c.count, c.progress(), pageSize)
	c.m.setSeal(c.seal)
	if c.log != nil {
		c.m.Bytes.Log = c.log.size
	}
}

// Manifest returns the manifest as it is now.
func (w *Writer) Manifest() *Manifest {
	c := w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fillManifest()
	return c.m.clone()
}

// UpdateMeta changes what the manifest says, for facts that come later than
// Create (the panic line, which is read from the log). ID, Host and StartTime stay.
// After the seal it returns ErrSealed.
func (w *Writer) UpdateMeta(change func(*Meta)) error {
	c := w.c
	if err := c.enter(w); err != nil {
		return err
	}
	defer c.commitMu.Unlock()
	c.mu.Lock()
	if c.seal != nil {
		c.mu.Unlock()
		return ErrSealed
	}
	meta := c.m.meta()
	change(&meta)
	c.m.setMeta(&meta)
	c.mu.Unlock()
	return c.saveManifest()
}

// StoreLog stores the kernel log. When it returns, vmcore-dmesg.txt is durable.
// Called again it replaces the log. An error of r leaves the writer as it was.
func (w *Writer) StoreLog(r io.Reader) error {
	c := w.c
	c.mu.Lock()
	c.temps++
	tmp := fmt.Sprintf("%s.%d%s", LogName, c.temps, tmpSuffix)
	c.mu.Unlock()
	rec, err := w.receiveLog(r, tmp)
	if err != nil {
		return err
	}
	if err := c.enter(w); err != nil {
		return err
	}
	defer c.commitMu.Unlock()
	if err := c.publishLog(tmp, rec); err != nil {
		return c.fail(err)
	}
	return c.saveManifest()
}

// receiveLog copies r to a temporary file and syncs it. It holds no lock while it waits for r,
// which may be a connection that is dead: a newer writer must not wait for it.
func (w *Writer) receiveLog(r io.Reader, tmp string) (rec logRecord, err error) {
	c := w.c
	var f File
	err = w.whileOwner(func() error {
		if c.seal != nil || c.sealing {
			return ErrSealed
		}
		f, err = c.fs.Create(c.path(tmp))
		if err != nil {
			return c.failLocked(err)
		}
		return nil
	})
	if err != nil {
		return rec, err
	}
	rec, err = w.copyLog(f, r)
	if err == nil {
		if err = f.Sync(); err != nil {
			err = c.fail(err)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return rec, errors.Join(err, ignoreNotExist(c.fs.Remove(c.path(tmp))))
	}
	return rec, nil
}

func (w *Writer) copyLog(f File, r io.Reader) (rec logRecord, err error) {
	sum, buf := sha256.New(), make([]byte, 64<<10)
	for {
		n, rerr := r.Read(buf)
		if n > 0 {
			_, _ = sum.Write(buf[:n]) // a hash takes everything
			err := w.whileOwner(func() error {
				if _, err := f.WriteAt(buf[:n], rec.size); err != nil {
					return w.c.failLocked(err)
				}
				return nil
			})
			if err != nil {
				return rec, err
			}
			rec.size += int64(n)
		}
		if errors.Is(rerr, io.EOF) {
			sum.Sum(rec.sum[:0])
			return rec, nil
		}
		if rerr != nil {
			return rec, rerr
		}
	}
}

// whileOwner runs fn while this handle owns the dump, so that a writer which was taken over
// writes nothing.
func (w *Writer) whileOwner(fn func() error) error {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if err := w.c.check(w); err != nil {
		return err
	}
	return fn()
}

// publishLog gives the log its name and notes it in the journal. commitMu is held.
func (c *core) publishLog(tmp string, rec logRecord) error {
	if c.seal != nil {
		return ErrSealed
	}
	if err := c.fs.Rename(c.path(tmp), c.path(LogName)); err != nil {
		return err
	}
	if err := c.fs.SyncDir(c.dir); err != nil {
		return err
	}
	c.j.add(recLog, rec.encode())
	if err := c.j.commit(); err != nil {
		return err
	}
	c.mu.Lock()
	c.log = &rec
	c.mu.Unlock()
	return nil
}

// hashFile returns length and SHA-256 of a file. stop, when not nil, ends it with an error.
func hashFile(fsys FS, name string, stop func() error) (size int64, sum [32]byte, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return 0, sum, err
	}
	size, sum, err = hashReader(f, stop)
	return size, sum, errors.Join(err, f.Close())
}

func hashReader(f File, stop func() error) (size int64, sum [32]byte, err error) {
	if size, err = f.Size(); err != nil {
		return 0, sum, err
	}
	h, buf := sha256.New(), make([]byte, min(size, 256<<10))
	for off := int64(0); off < size; {
		if stop != nil {
			if err := stop(); err != nil {
				return 0, sum, err
			}
		}
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if n == 0 {
			return 0, sum, errors.Join(io.ErrUnexpectedEOF, err)
		}
		_, _ = h.Write(buf[:n]) // a hash takes everything
		off += int64(n)
	}
	h.Sum(sum[:0])
	return size, sum, nil
}

// sumLine is a line of SHA256SUMS.
func sumLine(sum [32]byte, name string) string {
	return hex.EncodeToString(sum[:]) + "  " + name + "\n"
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
