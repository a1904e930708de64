package dumpdir

import (
	"context"

	"github.com/corehaul/corehaul/vmcore"
)

// Forgetter is a File that can drop its pages from the page cache. The next read then comes from the disk, and a long
// read does not displace other files.
type Forgetter interface {
	Forget() error
}

// forgetEvery is how many bytes are read before they are dropped.
const forgetEvery = 8 << 20

// limited returns a dump that calls limit before each read.
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

// limitedFS opens files that call limit before each read.
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
	read int // since the last Forget
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

// NextData implements vmcore.Holes.
func (f *limitedFile) NextData(off int64) (at int64, ok bool) {
	if h, isHoles := f.File.(vmcore.Holes); isHoles {
		return h.NextData(off)
	}
	return off, true
}

// Close implements File.
func (f *limitedFile) Close() error {
	f.forget()
	return f.File.Close()
}

func (f *limitedFile) forget() {
	f.read = 0
	if g, ok := f.File.(Forgetter); ok {
		_ = g.Forget() // only advice to the system
	}
}
