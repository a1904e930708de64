package sftpfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"sync"

	"github.com/pkg/sftp"
)

// Blocks of the cache. A block is what one packet carries.
const (
	blockLen  = 32 << 10
	maxBlocks = 64
	// largeRead passes the cache by: page contents are read once.
	largeRead = blockLen / 2
)

// file is an open file.
type file struct {
	fs   *FS
	name string
	h    *sftp.File

	mu      sync.Mutex
	err     error // the first of a write that had not been waited for
	pending []*write
	blocks  map[int64][]byte // by number; full ones only
}

// write is one that the server has not answered.
type write struct {
	off, end int64
	done     chan struct{}
}

func newFile(fs *FS, name string, h *sftp.File) *file {
	return &file{fs: fs, name: name, h: h, blocks: map[int64][]byte{}}
}

// WriteAt begins to write. It waits for room, and for writes to the same place.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.check(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	cost := min(max(int64(len(p)), minCost), inFlight)
	if err := f.fs.room.Acquire(context.Background(), cost); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle(off, off+int64(len(p)))
	if f.err != nil {
		f.fs.room.Release(cost)
		return 0, f.err
	}
	f.overlay(p, off)
	w := &write{off: off, end: off + int64(len(p)), done: make(chan struct{})}
	f.pending = append(f.pending, w)
	go f.finish(w, bytes.Clone(p), cost)
	return len(p), nil
}

// finish waits for the answer to a write.
func (f *file) finish(w *write, p []byte, cost int64) {
	_, err := f.h.WriteAt(p, w.off)
	f.fs.room.Release(cost)
	if err != nil {
		err = wrap("write", f.name, f.fs.full(f.name, err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, p := range f.pending {
		if p == w {
			f.pending = append(f.pending[:i], f.pending[i+1:]...)
			break
		}
	}
	if f.err == nil {
		f.err = err
	}
	close(w.done)
}

// settle waits until no write to [off, end) is on its way. mu is held, and let go meanwhile.
func (f *file) settle(off, end int64) {
	for {
		var w *write
		for _, p := range f.pending {
			if p.off < end && off < p.end {
				w = p
				break
			}
		}
		if w == nil {
			return
		}
		f.mu.Unlock()
		<-w.done
		f.mu.Lock()
	}
}

// drain waits for the writes that are on their way now, and returns the first error of any.
func (f *file) drain() error {
	f.mu.Lock()
	list := append([]*write(nil), f.pending...)
	f.mu.Unlock()
	for _, w := range list {
		<-w.done
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// overlay brings cached blocks up to a write. mu is held.
func (f *file) overlay(p []byte, off int64) {
	for len(p) > 0 {
		n, at := off/blockLen, off%blockLen
		part := min(int64(len(p)), blockLen-at)
		if b := f.blocks[n]; b != nil {
			copy(b[at:], p[:part])
		}
		p, off = p[part:], off+part
	}
}

// ReadAt reads what was written, answered or not.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(p) >= largeRead {
		n, err := f.fetch(p, off)
		return n, f.readError(err)
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		b, err := f.block(at / blockLen)
		if start := at % blockLen; start < int64(len(b)) {
			done += copy(p[done:], b[start:])
			continue
		}
		return done, f.readError(err)
	}
	return done, nil
}

func (f *file) readError(err error) error {
	if f.err != nil {
		return f.err
	}
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return wrap("read", f.name, err)
}

// fetch reads from the server. mu is held: nothing is written to the file meanwhile.
func (f *file) fetch(p []byte, off int64) (int, error) {
	f.settle(off, off+int64(len(p)))
	n, err := f.h.ReadAt(p, off)
	if n < len(p) && len(f.pending) > 0 {
		// A write further behind may be about to make the file longer.
		f.settle(0, math.MaxInt64)
		n, err = f.h.ReadAt(p, off)
	}
	return n, err
}

// block returns a block, with io.EOF when the file ends in it. mu is held.
func (f *file) block(n int64) ([]byte, error) {
	if b := f.blocks[n]; b != nil {
		return b, nil
	}
	b := make([]byte, blockLen)
	got, err := f.fetch(b, n*blockLen)
	if got < len(b) {
		if err == nil {
			err = io.EOF
		}
		return b[:got], err
	}
	if len(f.blocks) >= maxBlocks {
		for old := range f.blocks { // any one: few are in use, and it is soon read again
			delete(f.blocks, old)
			break
		}
	}
	f.blocks[n] = b
	return b, nil
}

// Truncate implements dumpdir.File.
func (f *file) Truncate(size int64) error {
	if err := errors.Join(f.fs.check(), f.drain()); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.blocks)
	if err := f.h.Truncate(size); err != nil {
		return wrap("truncate", f.name, f.fs.full(f.name, err))
	}
	return nil
}

// Sync implements dumpdir.File, as far as the server can.
func (f *file) Sync() error {
	if err := errors.Join(f.drain(), f.fs.check()); err != nil || !f.fs.fsync {
		return err
	}
	return wrap("fsync", f.name, f.h.Sync())
}

// Size implements dumpdir.File.
func (f *file) Size() (int64, error) {
	if err := f.drain(); err != nil {
		return 0, err
	}
	st, err := f.h.Stat()
	if err != nil {
		return 0, wrap("stat", f.name, err)
	}
	return st.Size(), nil
}

// Close waits for all writes.
func (f *file) Close() error {
	return errors.Join(f.drain(), f.h.Close())
}
