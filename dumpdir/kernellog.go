package dumpdir

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// StoreLog stores the kernel log. On return, vmcore-dmesg.txt is durable. A second call replaces the log. After an
// error of r the writer stays usable.
func (w *Writer) StoreLog(r io.Reader) error {
	return w.StoreLogMeta(r, func(*Meta) {})
}

// StoreLogMeta is StoreLog and UpdateMeta with what the log says: it calls change when it has read all of r. The manifest is written
// once for both.
func (w *Writer) StoreLogMeta(r io.Reader, change func(*Meta)) error {
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
	c.changeMeta(change)
	return c.saveManifest()
}

// receiveLog copies r to a temporary file and syncs it. It holds no lock while it reads r, which may be a dead
// connection: a newer writer must not wait for it.
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

// whileOwner runs fn if this handle owns the dump, so that a revoked writer writes nothing.
func (w *Writer) whileOwner(fn func() error) error {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if err := w.c.check(w); err != nil {
		return err
	}
	return fn()
}

// publishLog renames the log and records it in the journal. commitMu is held.
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

// recordLog appends the missing record of a log that has its name already.
func (c *core) recordLog(there bool) error {
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
