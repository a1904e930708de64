// Package plainfile opens and makes regular files at paths where something else may lie: in a directory that another
// user, or a peer over SFTP, can write, or where somebody mistyped. A FIFO or a device is refused before anything waits
// for it, a file that is made never goes through a link that was planted, and errors carry the path that
// the caller knows.
//
// Files of /proc, as /proc/vmcore, are regular. The package is safe for concurrent use.
package plainfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNotRegular is in the errors for what is no regular file.
var ErrNotRegular = errors.New("not a regular file")

// check returns why a file cannot be taken for a regular one.
func check(path string, mode fs.FileMode) error {
	kind := ""
	switch mode.Type() {
	case 0:
		return nil
	case fs.ModeDir:
		kind = "a directory"
	case fs.ModeSymlink:
		kind = "a symbolic link"
	case fs.ModeNamedPipe:
		kind = "a FIFO or pipe"
	case fs.ModeSocket:
		kind = "a socket"
	default:
		kind = "a device"
	}
	return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("it is %s, %w", kind, ErrNotRegular)}
}

// Open opens a regular file for reading. Links are followed.
func Open(path string) (*os.File, error) { return OpenFile(path, os.O_RDONLY) }

// OpenFile opens a regular file that is there, with flags as os.OpenFile has them. For writing, the last element of path must
// not be a link.
func OpenFile(path string, flag int) (*os.File, error) {
	stat := os.Stat
	if flag&(os.O_WRONLY|os.O_RDWR) != 0 {
		flag |= unix.O_NOFOLLOW
		stat = os.Lstat
	}
	// Only to open some devices does something already, so the name is asked first; it may change meanwhile, so
	// the file is asked as well, and does not wait.
	info, err := stat(path)
	if err != nil {
		return nil, opening(err)
	}
	if err := check(path, info.Mode()); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, flag|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil {
		err = check(path, info.Mode())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// opening calls a failed stat what it was for.
func opening(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: "open", Path: pe.Path, Err: pe.Err}
	}
	return err
}

// OpenDir opens a directory.
func OpenDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
}

// OpenRoot opens a directory to work below it, whatever becomes of its name meanwhile. The last element of path must not be a
// link: who deletes what lies there would delete it elsewhere.
func OpenRoot(path string) (*os.Root, error) {
	named, err := os.Lstat(path)
	if err != nil {
		return nil, opening(err)
	}
	if !named.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("it is no directory (%v)", named.Mode())}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	opened, err := root.Stat(".")
	if err == nil && !os.SameFile(named, opened) {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("it was replaced meanwhile")}
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	d, err := OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Read reads a regular file of at most limit bytes.
func Read(path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return readAll(f, path, limit)
}

// ReadText is Read of a file that a person wrote. A shell's <(COMMAND) is such a file too: a pipe of which the caller was given
// the open end.
func ReadText(path string, limit int64) ([]byte, error) {
	if !strings.HasPrefix(path, "/dev/fd/") && !strings.HasPrefix(path, "/proc/self/fd/") && path != "/dev/stdin" {
		return Read(path, limit)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return readAll(f, path, limit)
}

func readAll(f *os.File, path string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is larger than the %d bytes that it may have", limit)}
	}
	return data, nil
}

// attempts is how often Create takes away what comes into its way.
const attempts = 3

// Create makes an empty file for reading and writing, in the place of the file, link or FIFO that may be there: nothing of that is
// opened or followed.
func Create(path string, perm fs.FileMode) (f *os.File, err error) {
	for range attempts {
		if err = os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, perm)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return f, err
}

// OpenToExtend opens a file for reading and writing, and makes it if there is none. It is regular, and no link.
func OpenToExtend(path string, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, perm)
	if errors.Is(err, fs.ErrExist) {
		return OpenFile(path, os.O_RDWR)
	}
	return f, err
}

// OpenToOthers says to whom a file with a secret is open: "" if to nobody. As OpenSSH has it, the owner's group may read what
// somebody else owns, which is how root gives a service a key.
func OpenToOthers(info fs.FileInfo) string {
	perm := info.Mode().Perm()
	switch {
	case perm&0o007 != 0:
		return fmt.Sprintf("everybody (%v)", info.Mode())
	case perm&0o070 != 0 && owned(info):
		return fmt.Sprintf("its group (%v)", info.Mode())
	}
	return ""
}

func owned(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int(st.Uid) == os.Geteuid()
}
