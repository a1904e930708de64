package plainfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// NextData returns the offset of the first byte of f at or behind off outside holes, with lseek(2) and SEEK_DATA. ok is
// false if a hole reaches to the end of f. If the file system does not know holes, everything is data. The call changes
// the file offset of f.
func NextData(f *os.File, off int64) (at int64, ok bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return off, true
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { at, serr = unix.Seek(int(fd), off, unix.SEEK_DATA) }); err != nil {
		return off, true
	}
	switch {
	case errors.Is(serr, unix.ENXIO):
		return 0, false
	case serr != nil:
		return off, true
	}
	return at, true
}

// Blocks returns the bytes that a file uses on the disk, at most its size: holes use nothing. Where the file system does
// not tell, it returns the size.
func Blocks(st fs.FileInfo) uint64 {
	size := max(0, st.Size())
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		size = min(size, max(0, sys.Blocks*512))
	}
	return uint64(size)
}

// Holes returns the bytes of a file that use nothing on the disk.
func Holes(st fs.FileInfo) uint64 { return uint64(max(0, st.Size())) - Blocks(st) }
