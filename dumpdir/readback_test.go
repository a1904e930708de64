package dumpdir_test

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// lateFS is the local file system. When a seal begins, the fsync of the vmcore fails, after the file was read back.
type lateFS struct {
	dumpdir.OS
	sealing atomic.Bool
	read    chan struct{} // closed at the end of the file
	once    sync.Once
}

// Create implements dumpdir.FS.
func (s *lateFS) Create(name string) (dumpdir.File, error) {
	f, err := s.OS.Create(name)
	if err == nil && filepath.Base(name) == dumpdir.IncompleteName {
		f = &lateFile{File: f, fs: s}
	}
	return f, err
}

type lateFile struct {
	dumpdir.File
	fs  *lateFS
	end atomic.Int64 // of the sealed file; 0 before
}

// Forget implements dumpdir.Forgetter: the file is in the page cache.
func (f *lateFile) Forget() error { return nil }

// Truncate notes the last step before the fsync.
func (f *lateFile) Truncate(size int64) error {
	if f.fs.sealing.Load() {
		f.end.Store(size)
	}
	return f.File.Truncate(size)
}

// ReadAt notes the end of the file.
func (f *lateFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if end := f.end.Load(); end > 0 && off+int64(n) == end {
		f.fs.once.Do(func() { close(f.fs.read) })
	}
	return n, err
}

// Sync fails once the file was read.
func (f *lateFile) Sync() error {
	if f.end.Load() == 0 {
		return f.File.Sync()
	}
	<-f.fs.read
	return syscall.EIO
}

// TestFsyncFailsAfterReadBack: an fsync that goes on while the file is read back, and fails last, leaves no sealed dump.
func TestFsyncFailsAfterReadBack(t *testing.T) {
	t.Parallel()
	at := filepath.Join(t.TempDir(), "dump")
	fsys := &lateFS{read: make(chan struct{})}
	m := dumpdirtest.NewMachine(70, 600, 16)
	w, err := dumpdir.Create(fsys, at, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	putAll(t, w, m.Chunks)
	fsys.sealing.Store(true)
	if res, err := w.Seal(t.Context(), ""); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %+v, %v", res, err)
	}
	if res, ok := w.Result(); ok {
		t.Errorf("sealed as %+v", res)
	}
	_ = w.Close() // it has failed
	d, err := dumpdir.Open(dumpdir.OS{}, at)
	if err != nil {
		t.Fatal(err)
	}
	if d.State() != dumpdir.StateArriving {
		t.Errorf("it is %v", d.State())
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if w, err = dumpdir.Resume(dumpdir.OS{}, at, dumpdir.Options{}); err != nil {
		t.Fatal(err)
	}
	res, err := w.Seal(t.Context(), "")
	if err := errors.Join(err, w.Close()); err != nil || res.State != dumpdir.StateComplete {
		t.Errorf("afterwards: %+v, %v", res, err)
	}
}
