package crashtree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// medium is the file of a dump. Its reads end with ctx: the records of a flattened file of a large machine take minutes to walk.
type medium struct {
	dumpfile.Holey
	ctx   context.Context
	local bool // see isLocal
}

// ReadAt implements io.ReaderAt. A bad sector of a local disk costs the pages in it, not the dump.
func (m medium) ReadAt(p []byte, off int64) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.Holey.ReadAt(p, off)
	if m.local && errors.Is(err, syscall.EIO) {
		err = fmt.Errorf("%w: %w", vmcore.ErrCorrupt, err)
	}
	return n, err
}

// isLocal reports whether a file lies on a disk of this machine. Elsewhere, EIO may be a server that is away for a while.
func isLocal(f *os.File) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil {
		return false
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.ISOFS_SUPER_MAGIC:
		return true
	}
	return false
}
