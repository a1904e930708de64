package export

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// checkRoom returns an error if the file system of out has no space for the bitmaps of a dump. Their size depends on the RAM that the dump
// says the machine has: 16 KB of a file can claim 4 PiB.
func checkRoom(out *os.File, h *kdumpfile.Header) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(out.Fd()), &st); err != nil || st.Blocks == 0 {
		return nil //nolint:nilerr // the write tells
	}
	return bitmapsFit(uint64(kdumpfile.BitmapBytes(h.RAM, h.PageSize, h.MaxPFN)), st.Bavail*uint64(st.Bsize))
}

func bitmapsFit(need, free uint64) error {
	if need <= free {
		return nil
	}
	return fmt.Errorf("%w: the bitmaps for the RAM that this dump says it has need %s, %s are free", syscall.ENOSPC, bytesize.Fine(need), bytesize.Fine(free))
}

// interruptible is an output whose writes fail once ctx is done: the bitmaps alone can take minutes.
type interruptible struct {
	*os.File
	ctx context.Context
}

// WriteAt implements io.WriterAt.
func (f interruptible) WriteAt(p []byte, off int64) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}
