package localfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// Error says why nothing can be written into a directory.
type Error struct {
	Dir string
	Err error
	// Hint is what to do.
	Hint string
}

// Error names the directory unless the reason does.
func (e *Error) Error() string {
	if _, ok := errors.AsType[*fs.PathError](e.Err); ok {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %v", e.Dir, e.Err)
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Hints returns the hint.
func (e *Error) Hints() []string { return []string{e.Hint} }

// Open opens a directory of the mounted file systems. The last element of dir must not be a link.
func Open(dir string) (*FS, error) {
	root, err := plainfile.OpenRoot(dir)
	return checked(root, dir, err)
}

// OpenBelow opens dir on the file system that is mounted at mount. Links count as that file system means them. None leads
// out of it.
func OpenBelow(mount, dir string) (*FS, error) {
	top, err := os.OpenRoot(mount)
	if err != nil {
		return nil, err
	}
	defer func() { _ = top.Close() }() // the root below it stays open
	root, err := top.OpenRoot(path.Join(".", dir))
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = &fs.PathError{Op: "open", Path: dir, Err: pe.Err}
	}
	return checked(root, dir, err)
}

// checked returns an error of type *Error if root was not opened, or nobody can write there.
func checked(root *os.Root, dir string, err error) (*FS, error) {
	if err != nil {
		return nil, &Error{Dir: dir, Err: err, Hint: hintOf(dir, err)}
	}
	d, err := root.Open(".")
	if err == nil {
		// This also asks whether the mount is read-only.
		err = errors.Join(unix.Faccessat(int(d.Fd()), ".", unix.W_OK|unix.X_OK, 0), d.Close())
	}
	if err != nil {
		return nil, errors.Join(&Error{Dir: dir, Err: err, Hint: hintOf(dir, err)}, root.Close())
	}
	return &FS{root: root, name: path.Clean(dir)}, nil
}

// hintOf returns what to do about an error of opening dir.
func hintOf(dir string, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("'mkdir -p %s' makes it, once the disk that is to hold the dumps is mounted; corehaul-send does not, because the disk may be missing", dir)
	case errors.Is(err, unix.EROFS):
		return "mount the file system for writing; if the kernel has made it read-only after an error, check it with fsck"
	case errors.Is(err, fs.ErrPermission):
		return "let the user of this program write there"
	}
	return "name a directory, and no link"
}

// InMemory reports whether a reboot empties the directory, because its file system is in memory.
func (f *FS) InMemory() bool {
	d, err := f.openDir(f.name)
	if err != nil {
		return false
	}
	defer func() { _ = d.Close() }() // only asked
	var st unix.Statfs_t
	err = unix.Fstatfs(int(d.Fd()), &st)
	return err == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}
