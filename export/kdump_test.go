package export_test

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/export"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// sparseDump writes a dump with one page of zeros at a high address: its bitmaps, of 64 MiB each, are holes.
func sparseDump(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	page := mem.Extent{Start: 1<<29 - 1, Count: 1}
	h := &kdumpfile.Header{
		PageSize: 4096, MaxPFN: page.End(), CurrentCPU: -1, RAM: []mem.Range{{Start: page.Start.Addr(12), End: page.End().Addr(12)}},
	}
	w, err := kdumpfile.Create(f, h, slices.Values([]mem.Extent{page}))
	if err == nil {
		err = w.PutZero(page)
	}
	if err == nil {
		err = w.SealComplete()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCopyKeepsHoles exports a file as it is, and encoded again: both are the dump, and take no more of the disk.
func TestCopyKeepsHoles(t *testing.T) {
	in := filepath.Join(t.TempDir(), "vmcore")
	sparseDump(t, in)
	for name, compress := range map[string]string{"as it is": "", "encoded again": "zstd"} {
		img, err := dumpfile.Open(in)
		if err != nil {
			t.Fatal(err)
		}
		src, err := export.NewSource(t.Context(), img, in, export.Options{Format: export.FormatKdump, Compress: compress})
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		if lost, err := export.Kdump(t.Context(), out, src, compress); err != nil || lost > 0 {
			t.Fatalf("%s: %d pages lost, %v", name, lost, err)
		}
		st, err := out.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 1<<20 {
			t.Errorf("%s: the file takes %d bytes of the disk", name, used)
		}
		copied, err := dumpfile.Open(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		a, err := vmcore.AccountOf(t.Context(), copied)
		if err != nil || !a.Complete() || a.Held != 1 {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}
