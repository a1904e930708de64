package remotefs

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
)

// smallLen bounds small writes, which are gathered, and small reads, which use the cache. In bytes.
const smallLen = blockLen / 2

// file is an open file.
type file struct {
	fs *FS
	h  Handle

	mu      sync.Mutex
	err     error // the first error of a write
	pending []*write
	dirty   bool   // written since the last Sync
	run     []byte // adjacent small writes from runAt on that were not sent
	runAt   int64
	cache   blockCache
	ahead   ahead
}

// write is a write that the server has not answered.
type write struct {
	off, end int64
	done     chan struct{}
	err      error // set once done is closed
}

func (w *write) overlaps(off, end int64) bool { return w.off < end && off < w.end }

func newFile(fs *FS, h Handle, empty bool) *file {
	return &file{fs: fs, h: h, cache: newBlockCache(empty)}
}

// WriteAt starts a write. It waits until the bytes in flight leave room. A small write is sent together with adjacent ones
// that follow, at the latest by Sync.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.check(); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return 0, f.err
	}
	f.ahead.drop()
	if len(p) < smallLen {
		return len(p), f.gather(p, off)
	}
	if err := f.flush(); err != nil {
		return 0, err
	}
	for done := 0; done < len(p); {
		part := p[done:min(done+f.fs.pieceLen, len(p))]
		if err := f.send(f.fs.clone(part), off+int64(done)); err != nil {
			return done, err
		}
		f.cache.write(part, off+int64(done))
		done += len(part)
	}
	return len(p), nil
}

// gather keeps a small write in f.run. It sends f.run first if the write is not adjacent or does not fit. mu is held.
func (f *file) gather(p []byte, off int64) error {
	if off != f.runAt+int64(len(f.run)) || len(f.run)+len(p) > blockLen {
		if err := f.flush(); err != nil {
			return err
		}
		f.runAt = off
	}
	f.run = append(f.run, p...)
	f.cache.write(p, off)
	return nil
}

// flush sends f.run. mu is held.
func (f *file) flush() error {
	if len(f.run) == 0 {
		return nil
	}
	err := f.send(f.fs.clone(f.run), f.runAt)
	f.run = f.run[:0]
	return err
}

// send starts to write b, which belongs to it from then on. mu is held. To release room, a write does not need mu.
func (f *file) send(b []byte, off int64) error {
	cost := max(int64(len(b)), minCost)
	if err := f.fs.room.Acquire(context.Background(), cost); err != nil {
		return err
	}
	w := &write{off: off, end: off + int64(len(b)), done: make(chan struct{})}
	var before []*write
	for _, p := range f.pending {
		if p.overlaps(w.off, w.end) {
			before = append(before, p)
		}
	}
	f.begin(w, func() error {
		for _, p := range before {
			<-p.done
		}
		_, err := f.h.WriteAt(b, off)
		f.fs.room.Release(cost)
		f.fs.giveBack(b)
		return err
	})
	f.dirty = true
	return nil
}

// begin runs do in the background as the pending write w. mu is held, or nobody else has the file.
func (f *file) begin(w *write, do func() error) {
	f.pending = append(f.pending, w)
	go func() { f.finish(w, do()) }()
}

// finish notes the answer to a write.
func (f *file) finish(w *write, err error) {
	w.err = err
	close(w.done) // before mu, because a waiter may hold mu
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, p := range f.pending {
		if p == w {
			f.pending = append(f.pending[:i], f.pending[i+1:]...)
			break
		}
	}
	f.fail(w.err)
}

// fail sets f.err, unless it is set. mu is held.
func (f *file) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

// flushRange waits until the server has acknowledged all writes to [off, end). mu is held, and released while it waits.
func (f *file) flushRange(off, end int64) error {
	for {
		if f.runAt < end && off < f.runAt+int64(len(f.run)) {
			if err := f.flush(); err != nil {
				return err
			}
		}
		var w *write
		for _, p := range f.pending {
			if p.overlaps(off, end) {
				w = p
				break
			}
		}
		if w == nil {
			return nil
		}
		f.mu.Unlock()
		<-w.done
		f.mu.Lock()
	}
}

// drain waits for all writes so far, and returns the file's first error.
func (f *file) drain() error {
	f.mu.Lock()
	err := f.flush()
	list := append([]*write(nil), f.pending...)
	f.mu.Unlock()
	for _, w := range list {
		<-w.done
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail(err)
	for _, w := range list {
		f.fail(w.err)
	}
	return f.err
}

// ReadAt implements dumpdir.File. It sees all writes, also those that the server has not answered.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n int
	var err error
	if len(p) >= smallLen {
		n, err = f.readLarge(p, off)
	} else {
		n, err = f.readSmall(p, off)
	}
	if f.err != nil {
		err = f.err
	}
	return n, err
}

// readSmall reads through the cache. mu is held.
func (f *file) readSmall(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		b, err := f.block(at / blockLen)
		if start := at % blockLen; start < int64(len(b)) {
			done += copy(p[done:], b[start:])
			continue
		}
		return done, err
	}
	return done, nil
}

// fetch reads from the server. mu is held during the read, so that nothing is written to the file meanwhile.
func (f *file) fetch(p []byte, off int64) (int, error) {
	if err := f.flushRange(off, off+int64(len(p))); err != nil {
		return 0, err
	}
	n, err := f.h.ReadAt(p, off)
	if n < len(p) && (len(f.pending) > 0 || len(f.run) > 0) {
		// A pending write may make the file longer.
		if err := f.flushRange(0, math.MaxInt64); err != nil {
			return 0, err
		}
		n, err = f.h.ReadAt(p, off)
	}
	return n, err
}

// block returns a block, with io.EOF if the file ends in it. mu is held.
func (f *file) block(n int64) ([]byte, error) {
	if b := f.cache.block(n); b != nil {
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
	f.cache.add(n, b)
	return b, nil
}

// Truncate implements dumpdir.File.
func (f *file) Truncate(size int64) error {
	if err := errors.Join(f.fs.check(), f.drain()); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead.drop()
	if err := f.h.Truncate(size); err != nil {
		f.cache.reset()
		return err
	}
	f.cache.truncate(size)
	return nil
}

// Sync implements dumpdir.File.
func (f *file) Sync() error {
	if err := errors.Join(f.drain(), f.fs.check()); err != nil {
		return err
	}
	f.mu.Lock()
	f.dirty = len(f.run) > 0 || len(f.pending) > 0 // new writes of other goroutines
	f.mu.Unlock()
	return f.h.Sync()
}

// Size implements dumpdir.File.
func (f *file) Size() (int64, error) {
	if err := f.drain(); err != nil {
		return 0, err
	}
	return f.h.Size()
}

// Close waits for all writes. It waits for the server to close the file only if there were writes since the last Sync.
func (f *file) Close() error {
	err := f.drain()
	f.mu.Lock()
	f.ahead.drop()
	dirty := f.dirty
	f.mu.Unlock()
	if dirty || err != nil {
		return errors.Join(err, f.h.Close())
	}
	go func() { _ = f.h.Close() }() // its result does not matter
	return nil
}
