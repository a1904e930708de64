package remotefs

import (
	"io"
	"math"
)

// aheadLen bounds the bytes that are requested or being copied during a large read: the window of an SSH channel.
const aheadLen = 2 << 20

// ahead is the state of large reads of one file, which go in pieces, and of reading ahead.
type ahead struct {
	next  int64 // where the last large read ended
	queue []*piece
	start int64 // of the queue, in the file
	end   int64 // where it ends
	stop  int64 // where it has to end: what follows is not needed
}

// piece is a part of a file that was requested.
type piece struct {
	off  int64
	b    []byte
	done chan struct{}
	n    int // n and err are set once done is closed
	err  error
}

// drop discards the requested pieces.
func (a *ahead) drop() { a.queue = nil }

// readLarge reads without the cache. It reads ahead if the read begins where the last one ended. mu is held.
func (f *file) readLarge(p []byte, off int64) (int, error) {
	a := &f.ahead
	stop := int64(math.MaxInt64)
	if off == 0 || off != a.next {
		a.drop()
		stop = off + int64(len(p))
	}
	a.stop = stop
	if len(a.queue) == 0 {
		f.flushRange(0, math.MaxInt64)
		a.start, a.end = off, off
	}
	done := 0
	for done < len(p) {
		f.fill()
		n, err := f.copyAhead(p[done:], off+int64(done))
		done += n
		if err != nil {
			a.drop()
			a.next = off + int64(done)
			return done, err
		}
	}
	a.next = off + int64(done)
	return done, nil
}

// fill requests pieces until the queue has as much as may be in flight. mu is held.
func (f *file) fill() {
	a := &f.ahead
	for a.end < a.stop && (len(a.queue) == 0 || a.end-a.start < f.fs.reads.size()) {
		n := int(min(int64(f.fs.reads.piece()), a.stop-a.end))
		p := &piece{off: a.end, b: f.fs.buffer(n), done: make(chan struct{})}
		a.queue, a.end = append(a.queue, p), a.end+int64(n)
		flight := f.fs.reads.start(n)
		go func() {
			defer close(p.done)
			p.n, p.err = f.h.ReadAt(p.b, p.off)
			f.fs.reads.end(flight)
		}()
	}
}

// copyAhead waits for the first piece, which contains off, and copies from it. mu is held.
func (f *file) copyAhead(p []byte, off int64) (int, error) {
	a := &f.ahead
	first := a.queue[0]
	select {
	case <-first.done:
	default:
		f.fs.reads.wait()
		<-first.done
	}
	from := int(off - first.off)
	n := copy(p, first.b[from:max(from, first.n)])
	if from+n < first.n {
		return n, nil
	}
	if first.n < len(first.b) {
		if n == len(p) {
			return n, nil // the next read reports the end
		}
		if first.err == nil {
			first.err = io.EOF
		}
		return n, first.err
	}
	a.queue, a.start = a.queue[1:], first.off+int64(len(first.b))
	f.fs.giveBack(first.b)
	return n, nil
}
