package dumpdirtest

import (
	"io"
	"io/fs"
	"slices"
	"syscall"
)

// file is an open file of FS.
type file struct {
	s     *FS
	ino   *inode
	name  string
	epoch int
	write bool
	done  bool
}

// usable returns an error if the handle may not be used. mu is held.
func (f *file) usable(op string, write bool) error {
	switch {
	case f.s.off || f.epoch != f.s.epoch:
		return ErrPowerCut
	case f.done:
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrClosed}
	case write && !f.write:
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrPermission}
	}
	return nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.usable("read", false); err != nil {
		return 0, err
	}
	if off >= int64(len(f.ino.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.ino.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.usable("write", true); err != nil {
		return 0, err
	}
	if err := f.s.begin(OpWrite, f.name); err != nil {
		f.ino.put(p[:len(p)/2], off) // a short write
		return len(p) / 2, err
	}
	if n := f.s.fits(f.ino, off, int64(len(p))); n < int64(len(p)) {
		f.ino.put(p[:n], off)
		return int(n), &fs.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
	}
	f.ino.put(p, off)
	return len(p), nil
}

// Allocate implements dumpdir.Allocator. Faults do not count it as an operation.
func (f *file) Allocate(off, n int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.usable("allocate", true); err != nil {
		return err
	}
	if f.s.fits(f.ino, off, n) < n {
		return &fs.PathError{Op: "allocate", Path: f.name, Err: syscall.ENOSPC}
	}
	f.ino.sectors.take(off, n)
	return nil
}

func (f *file) Truncate(size int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.usable("truncate", true); err != nil {
		return err
	}
	if err := f.s.begin(OpTruncate, f.name); err != nil {
		return err
	}
	f.ino.truncate(size)
	return nil
}

func (f *file) Sync() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.usable("sync", false); err != nil {
		return err
	}
	if err := f.s.begin(OpSync, f.name); err != nil {
		if !f.s.off {
			f.ino.pending = nil // Linux marks what it could not write as clean: no later sync writes it
		}
		return err
	}
	if !f.s.ignored(OpSync, f.name) {
		f.ino.sync()
	}
	return nil
}

func (f *file) Size() (int64, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.usable("stat", false); err != nil {
		return 0, err
	}
	return int64(len(f.ino.data)), nil
}

func (f *file) Close() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.done = true
	return nil
}

func (i *inode) put(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	i.sectors.take(off, int64(len(p)))
	w := pending{off, slices.Clone(p)}
	i.data = w.apply(i.data)
	i.pending = append(i.pending, w)
}

// sync makes all writes since the last sync durable.
func (i *inode) sync() {
	for _, p := range i.pending {
		i.durable = p.apply(i.durable)
	}
	i.pending = nil
}

// truncate leaves a hole behind the end of a file that becomes longer.
func (i *inode) truncate(size int64) {
	i.sectors.cut(size)
	i.data = resize(i.data, size)
	i.pending = append(i.pending, pending{off: size})
}
