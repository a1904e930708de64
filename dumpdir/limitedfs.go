package dumpdir

import "context"

// Forgetter is a File that can have the system drop what it keeps of it in memory, so that the next read comes from
// the disk, and does not push out what others need.
type Forgetter interface {
	Forget() error
}

// forgetEvery is how many bytes of a file are read before they are forgotten.
const forgetEvery = 8 << 20

// limited returns a dump that asks limit before it reads.
func (d *Dump) limited(ctx context.Context, limit func(ctx context.Context, n int) error) *Dump {
	wait := func(n int) error { return limit(ctx, n) }
	c := *d
	c.fs = limitedFS{d.fs, wait}
	if d.jr != nil {
		jr := *d.jr
		jr.r = &limitedFile{File: d.jf, wait: wait}
		c.jr = &jr
	}
	return &c
}

// limitedFS opens files that ask before each read.
type limitedFS struct {
	FS
	wait func(n int) error
}

// Open implements FS.
func (s limitedFS) Open(name string) (File, error) {
	f, err := s.FS.Open(name)
	if err != nil {
		return nil, err
	}
	l := &limitedFile{File: f, wait: s.wait}
	l.forget()
	return l, nil
}

// limitedFile is read by one goroutine.
type limitedFile struct {
	File
	wait func(n int) error
	read int // since the file was forgotten
}

// ReadAt implements File.
func (f *limitedFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.wait(len(p)); err != nil {
		return 0, err
	}
	if f.read += len(p); f.read >= forgetEvery {
		f.forget()
	}
	return f.File.ReadAt(p, off)
}

// Close implements File.
func (f *limitedFile) Close() error {
	f.forget()
	return f.File.Close()
}

func (f *limitedFile) forget() {
	f.read = 0
	if g, ok := f.File.(Forgetter); ok {
		_ = g.Forget() // advice: where it is not taken, the bytes are the same
	}
}
