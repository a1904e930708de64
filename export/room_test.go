package export

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestInterruptedBitmaps exports a file of a few KB that claims 64 TiB of RAM, when nobody waits for it any more: the bitmaps, of 2 GiB each,
// are not written.
func TestInterruptedBitmaps(t *testing.T) {
	in := filepath.Join(t.TempDir(), "core")
	core := &vmcoretest.Core{Type: 4, Machine: 62, Loads: []vmcoretest.Load{{Data: make([]byte, 4096), Memsz: 1 << 46}}}
	if err := os.WriteFile(in, core.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := dumpfile.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	src, err := NewSource(t.Context(), img, in, Options{Format: FormatKdump})
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Kdump(ctx, out, src, ""); !errors.Is(err, context.Canceled) && !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	st, err := out.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 1<<20 {
		t.Errorf("%d bytes were written", used)
	}
}

// TestBitmapsFit compares what bitmaps need with what is free.
func TestBitmapsFit(t *testing.T) {
	if err := bitmapsFit(256<<30, 52<<30); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("too much: %v", err)
	}
	if err := bitmapsFit(1<<20, 1<<20); err != nil {
		t.Errorf("all that there is: %v", err)
	}
}
