package plainfile

import (
	"errors"
	"os"

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
