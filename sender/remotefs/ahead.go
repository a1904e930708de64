package remotefs

import (
	"io"
	"math"
)

// aheadLen is how many bytes are requested or being copied during a sequential read, beside two more pieces: the window of an
// SSH channel.
const aheadLen = 2 << 20

// ahead is the state of reading ahead in one file.
type ahead struct {
	next  int64 // where the last large read ended
	queue []*piece
	end   int64 // where the queue ends
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
	if off == 0 || off != a.next {
		a.drop()
		n, err := f.fetch(p, off)
		a.next = off + int64(n)
		return n, err
	}
	if len(a.queue) == 0 {
		if err := f.flushRange(0, math.MaxInt64); err != nil {
			return 0, err
		}
		a.end = off
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

// fill requests pieces until enough are in the queue. mu is held.
func (f *file) fill() {
	a := &f.ahead
	for len(a.queue) < aheadLen/f.fs.pieceLen+2 {
		p := &piece{off: a.end, b: f.fs.buffer(), done: make(chan struct{})}
		a.queue, a.end = append(a.queue, p), a.end+int64(len(p.b))
		go func() {
			defer close(p.done)
			p.n, p.err = f.h.ReadAt(p.b, p.off)
		}()
	}
}

// copyAhead waits for the first piece, which contains off, and copies from it. mu is held.
func (f *file) copyAhead(p []byte, off int64) (int, error) {
	a := &f.ahead
	first := a.queue[0]
	<-first.done
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
	a.queue = a.queue[1:]
	f.fs.giveBack(first.b)
	return n, nil
}
