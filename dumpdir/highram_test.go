package dumpdir_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// onDisk returns the bytes that a file takes on its disk.
func onDisk(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Blocks * 512
}

// TestHighRAM stores dumps of a machine with a little RAM at 1 TiB, whole and in part: the bitmaps, which have to reach that
// far, are holes for the most part, and the dump is as good as any.
func TestHighRAM(t *testing.T) {
	const chunks, limit = 20, 4 << 20
	m := dumpdirtest.NewMachineAt(81, chunks*16, 16, 1<<40>>12)
	for name, n := range map[string]int{"complete": chunks, "partial": chunks / 2} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir() + "/d"
			w := start(t, dumpdir.OS{}, dir, m)
			putAll(t, w, m.Chunks[:n/2])
			if _, err := w.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			w, err := dumpdir.Resume(dumpdir.OS{}, dir, dumpdir.Options{})
			if err != nil {
				t.Fatal(err)
			}
			putAll(t, w, m.Chunks[n/2:n])
			if _, err := w.Seal(t.Context(), "cut off"); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "vmcore")
			if got := onDisk(t, path); got > limit {
				t.Errorf("the file takes %d bytes of the disk", got)
			}
			wantClean(t, verify(t, dumpdir.OS{}, dir))
			im, err := openDump(t, dumpdir.OS{}, dir).OpenImage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wantPages(t, im, m, n, nil)
			if err := im.Close(); err != nil {
				t.Fatal(err)
			}
			file, err := dumpfile.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			wantPages(t, file, m, n, nil)
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// countingFS counts the bytes that are written or allocated, and those that are read.
type countingFS struct {
	dumpdir.OS
	cost *int64
}

type countingFile struct {
	dumpdir.File
	cost *int64
}

func (s countingFS) Create(name string) (dumpdir.File, error) { return s.count(s.OS.Create(name)) }

func (s countingFS) OpenRW(name string) (dumpdir.File, error) { return s.count(s.OS.OpenRW(name)) }

func (s countingFS) count(f dumpdir.File, err error) (dumpdir.File, error) {
	return countingFile{f, s.cost}, err
}

func (f countingFile) WriteAt(p []byte, off int64) (int, error) {
	*f.cost += int64(len(p))
	return f.File.WriteAt(p, off)
}

func (f countingFile) ReadAt(p []byte, off int64) (int, error) {
	*f.cost += int64(len(p))
	return f.File.ReadAt(p, off)
}

func (f countingFile) Allocate(off, n int64) error {
	*f.cost += n
	return f.File.(dumpdir.Allocator).Allocate(off, n)
}

func (f countingFile) NextData(off int64) (int64, bool) {
	return f.File.(interface {
		NextData(off int64) (int64, bool)
	}).NextData(off)
}

// TestPlanOfAHugeMachine: a plan of one page costs what a page costs, however far the machine says that its memory
// reaches. So does going on with it.
func TestPlanOfAHugeMachine(t *testing.T) {
	m := dumpdirtest.NewMachine(82, 1, 1)
	m.Facts.MaxPFN = 1 << 36
	var cost int64
	fsys, dir := countingFS{cost: &cost}, t.TempDir()+"/d"
	w := start(t, fsys, dir, m)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if cost > 2<<20 {
		t.Errorf("%d bytes were written, allocated or read", cost)
	}
}

// TestFullDiskOfHoles: a write into a hole of the tests' disk fails when it is full, and one into what is allocated does
// not.
func TestFullDiskOfHoles(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	if err := fsys.MkdirAll("/d"); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Create("/d/f")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(1<<20), f.(dumpdir.Allocator).Allocate(4096, 4096)); err != nil {
		t.Fatal(err)
	}
	fsys.SetRoom(fsys.Used())
	piece := bytes.Repeat([]byte{1}, 4096)
	if _, err := f.WriteAt(piece, 4096); err != nil {
		t.Errorf("into what is allocated: %v", err)
	}
	for _, off := range []int64{0, 2048, 6144, 8192, 1<<20 - 4096} {
		if _, err := f.WriteAt(piece, off); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("into a hole, at %d: %v", off, err)
		}
	}
	if used := fsys.Used(); used != 4096 {
		t.Errorf("%d bytes are used", used)
	}
}
