package crashtree

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// TestBadSector reads what the kernel cannot read: EIO of a local disk is about the dump, any other is not. /proc/self/mem has nothing at 0.
func TestBadSector(t *testing.T) {
	f, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	for _, local := range []bool{false, true} {
		_, err := medium{dumpfile.Holey{File: f}, t.Context(), local}.ReadAt(make([]byte, 8), 0)
		if !errors.Is(err, unix.EIO) || dumpcopy.OfDump(err) != local {
			t.Errorf("local %v: %v", local, err)
		}
	}
	if isLocal(f) {
		t.Error("/proc is a disk")
	}
}
