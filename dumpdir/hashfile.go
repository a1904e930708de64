package dumpdir

import (
	"crypto/sha256"
	"errors"
	"io"
)

// hashBlock is how much is read at once, and once more while that is hashed. In bytes.
const hashBlock = 256 << 10

// hashFile returns length and SHA-256 of a file. stop, if not nil, ends it with an error.
func hashFile(fsys FS, name string, stop func() error) (size int64, sum [32]byte, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return 0, sum, err
	}
	size, sum, err = hashReader(f, stop, nil)
	return size, sum, errors.Join(err, f.Close())
}

// hashReader is hashFile of an open file. It calls tell, if that is not nil, as it gets on. SHA-256 takes one CPU longer than the disk takes to read, so nothing may wait for both.
func hashReader(f File, stop func() error, tell func(done, total int64)) (size int64, sum [32]byte, err error) {
	if size, err = f.Size(); err != nil {
		return 0, sum, err
	}
	h, ahead := sha256.New(), readAhead{f: f, size: size}
	defer ahead.end()
	for off := int64(0); off < size; {
		if stop != nil {
			if err := stop(); err != nil {
				return 0, sum, err
			}
		}
		if tell != nil {
			tell(off, size)
		}
		if n := hashHole(h, f, off, size); n > 0 {
			off += n
			continue
		}
		b, err := ahead.read(off)
		if len(b) == 0 {
			return 0, sum, errors.Join(io.ErrUnexpectedEOF, err)
		}
		_, _ = h.Write(b) // a hash takes everything
		off += int64(len(b))
	}
	h.Sum(sum[:0])
	return size, sum, nil
}

// readAhead reads a file in blocks. While its caller works on a block, it reads the next one.
type readAhead struct {
	f    io.ReaderAt
	size int64 // of the file
	bufs [2][]byte
	next *blockRead // nil at the end
}

// blockRead is a read in the background, into one of two buffers.
type blockRead struct {
	off  int64
	into int
	n    int
	err  error
	done chan struct{} // closed when n and err are set
}

// read returns the block at off, which is below the size. It is valid until the next read.
func (a *readAhead) read(off int64) ([]byte, error) {
	if a.next == nil || a.next.off != off {
		a.end()
		a.start(off, 0)
	}
	r := a.next
	a.end()
	if end := off + int64(r.n); r.n > 0 && end < a.size {
		a.start(end, 1-r.into)
	}
	return a.bufs[r.into][:r.n], r.err
}

// start begins to read at off.
func (a *readAhead) start(off int64, into int) {
	n := min(hashBlock, a.size-off)
	if int64(len(a.bufs[into])) < n {
		a.bufs[into] = make([]byte, n)
	}
	buf := a.bufs[into][:n]
	r := &blockRead{off: off, into: into, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.n, r.err = a.f.ReadAt(buf, r.off)
	}()
	a.next = r
}

// end waits for the read in the background.
func (a *readAhead) end() {
	if a.next != nil {
		<-a.next.done
		a.next = nil
	}
}
