package dumpdir_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// watchedFS is the local file system. It counts the files that are created and the fsyncs of the vmcore, and notes which parts of
// the vmcore the disk was told to begin with.
type watchedFS struct {
	dumpdir.OS
	mu      sync.Mutex
	created map[string]int // by name
	syncs   int
	started []int64 // pairs of offset and end
}

// Create implements dumpdir.FS.
func (s *watchedFS) Create(name string) (dumpdir.File, error) {
	s.mu.Lock()
	s.created[strings.TrimSuffix(filepath.Base(name), ".tmp")]++
	s.mu.Unlock()
	f, err := s.OS.Create(name)
	if err == nil && filepath.Base(name) == dumpdir.IncompleteName {
		f = &watchedFile{File: f, fs: s}
	}
	return f, err
}

type watchedFile struct {
	dumpdir.File
	fs *watchedFS
}

// Forget implements dumpdir.Forgetter: the file is in the page cache.
func (f *watchedFile) Forget() error { return nil }

// Sync implements dumpdir.File.
func (f *watchedFile) Sync() error {
	f.fs.mu.Lock()
	f.fs.syncs++
	f.fs.mu.Unlock()
	return f.File.Sync()
}

// StartSync implements dumpdir.SyncStarter.
func (f *watchedFile) StartSync(off, n int64) {
	f.fs.mu.Lock()
	f.fs.started = append(f.fs.started, off, off+n)
	f.fs.mu.Unlock()
	f.File.(dumpdir.SyncStarter).StartSync(off, n)
}

// TestSealCommitsInOneSync: the seal makes chunks durable that nobody committed, with one fsync of the vmcore for them and the
// front. The disk was told of nearly all of the data before, each part once.
func TestSealCommitsInOneSync(t *testing.T) {
	t.Parallel()
	fsys := &watchedFS{created: map[string]int{}}
	at := filepath.Join(t.TempDir(), "dump")
	m := dumpdirtest.NewMachine(71, 6000, 256)
	w, err := dumpdir.Create(fsys, at, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }() // only for a test that has failed
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	for i := range m.Chunks {
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	res, err := w.Seal(t.Context(), "")
	if err := errors.Join(err, w.Close()); err != nil || res.State != dumpdir.StateComplete || res.Progress.Present != 6000 {
		t.Fatalf("sealed as %+v, %v", res, err)
	}
	if fsys.syncs != 1 {
		t.Errorf("%d fsyncs of the vmcore, want 1", fsys.syncs)
	}
	if n := len(fsys.started); n < 2 || res.Progress.Bytes-fsys.started[n-1] > 4<<20 {
		t.Fatalf("the disk was told of %v of %d bytes", fsys.started, res.Progress.Bytes)
	}
	for i := 2; i < len(fsys.started); i += 2 {
		if fsys.started[i] != fsys.started[i-1] {
			t.Errorf("the disk was told of %v, in parts that do not touch", fsys.started)
		}
	}
	verifyClean(t, at)
}

// verifyClean verifies the dump in a directory.
func verifyClean(t *testing.T, dir string) {
	t.Helper()
	d, err := dumpdir.Open(dumpdir.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	if err := errors.Join(err, d.Close()); err != nil || rep.Damaged != 0 {
		t.Errorf("verified: %+v, %v", rep, err)
	}
}

// TestManifestIsWrittenOnceForALog: the facts that a log tells are in the manifest that says that the log is there.
func TestManifestIsWrittenOnceForALog(t *testing.T) {
	t.Parallel()
	fsys := &watchedFS{created: map[string]int{}}
	at := filepath.Join(t.TempDir(), "dump")
	m := dumpdirtest.NewMachine(72, 60, 16)
	w, err := dumpdir.Create(fsys, at, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	before := fsys.created[dumpdir.ManifestName]
	err = w.StoreLogMeta(bytes.NewReader(m.Log), func(meta *dumpdir.Meta) { meta.PanicLine = "the panic line" })
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if n := fsys.created[dumpdir.ManifestName] - before; n != 1 {
		t.Errorf("the manifest was written %d times", n)
	}
	d, err := dumpdir.Open(dumpdir.OS{}, at)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Manifest(); got.PanicLine != "the panic line" || got.Bytes.Log != int64(len(m.Log)) {
		t.Errorf("the manifest is %+v", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
