package remotefs

import (
	"errors"
	"io"
	"math"
	"slices"
	"sync"
)

// smallLen bounds small writes, which are gathered, and small reads, which use the cache. In bytes.
const smallLen = blockLen / 2

// file is an open file.
type file struct {
	fs *FS
	h  Handle

	mu      sync.Mutex
	err     error    // the first error of a write
	pending []*write // and some that the server has answered since the last reap
	dirty   bool     // written since the last Sync
	run     []byte   // adjacent small writes from runAt on that were not sent
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
	if f.reap(); f.err != nil {
		return 0, f.err
	}
	f.ahead.drop()
	if len(p) < smallLen {
		f.gather(p, off)
		return len(p), nil
	}
	f.flush()
	f.send(p, off)
	f.cache.write(p, off)
	return len(p), nil
}

// gather keeps a small write in f.run. It sends f.run first if the write is not adjacent or does not fit. mu is held.
func (f *file) gather(p []byte, off int64) {
	if off != f.runAt+int64(len(f.run)) || len(f.run)+len(p) > blockLen {
		f.flush()
		f.runAt = off
	}
	f.run = append(f.run, p...)
	f.cache.write(p, off)
}

// flush sends f.run. mu is held.
func (f *file) flush() {
	f.send(f.run, f.runAt)
	f.run = f.run[:0]
}

// send starts to write p in pieces, and does not keep it. mu is held.
func (f *file) send(p []byte, off int64) {
	for len(p) > 0 {
		n := min(f.fs.writes.piece(), len(p))
		flight := f.fs.writes.acquire(n)
		f.sendPiece(flight, append(f.fs.buffer(n)[:0], p[:n]...), off)
		p, off = p[n:], off+int64(n)
	}
}

// sendPiece starts to write b, which belongs to it from then on. mu is held. To end the flight, a write does not need mu.
func (f *file) sendPiece(flight flight, b []byte, off int64) {
	w := &write{off: off, end: off + int64(len(b)), done: make(chan struct{})}
	f.reap()
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
		f.fs.writes.end(flight)
		f.fs.giveBack(b)
		return err
	})
	f.dirty = true
}

// begin runs do in the background as the pending write w. mu is held, or nobody else has the file.
func (f *file) begin(w *write, do func() error) {
	f.pending = append(f.pending, w)
	go func() {
		w.err = do()
		close(w.done)
	}()
}

// reap notes the answers to writes. mu is held.
func (f *file) reap() {
	f.pending = slices.DeleteFunc(f.pending, func(w *write) bool {
		select {
		case <-w.done:
			f.fail(w.err)
			return true
		default:
			return false
		}
	})
}

// fail sets f.err, unless it is set. mu is held.
func (f *file) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

// flushRange waits until the server has acknowledged all writes to [off, end). mu is held, and released while it waits.
func (f *file) flushRange(off, end int64) {
	for {
		f.reap()
		if f.runAt < end && off < f.runAt+int64(len(f.run)) {
			f.flush()
		}
		var w *write
		for _, p := range f.pending {
			if p.overlaps(off, end) {
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

// drain waits for all writes so far, and returns the file's first error.
func (f *file) drain() error {
	f.mu.Lock()
	f.flush()
	list := slices.Clone(f.pending)
	f.mu.Unlock()
	for _, w := range list {
		<-w.done
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reap()
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
	if f.reap(); f.err != nil {
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

// fetch reads a little from the server. mu is held during the read, so that nothing is written to the file meanwhile.
func (f *file) fetch(p []byte, off int64) (int, error) {
	f.flushRange(off, off+int64(len(p)))
	n, err := f.h.ReadAt(p, off)
	if n < len(p) && (len(f.pending) > 0 || len(f.run) > 0) {
		f.flushRange(0, math.MaxInt64) // a pending write may make the file longer
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
