// Package plainfile opens and creates regular files at paths where something else may lie: in a directory that
// another user or an SFTP peer can write, or after a typing mistake. It refuses a FIFO or a device before an open can
// block, and does not follow a planted link when it creates a file. Errors carry the caller's path.
//
// Files of /proc, such as /proc/vmcore, are regular. The package is safe for concurrent use.
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

// ErrNotRegular is in the error for a file that is not regular.
var ErrNotRegular = errors.New("not a regular file")

// check returns an error unless mode is that of a regular file.
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

// Open opens a regular file for reading. It follows links.
func Open(path string) (*os.File, error) { return OpenFile(path, os.O_RDONLY) }

// OpenFile opens an existing regular file, with the flags of os.OpenFile. For writing, or with O_NOFOLLOW, the last element of
// path must not be a link.
func OpenFile(path string, flag int) (*os.File, error) {
	stat := os.Stat
	if flag&(os.O_WRONLY|os.O_RDWR|unix.O_NOFOLLOW) != 0 {
		flag |= unix.O_NOFOLLOW
		stat = os.Lstat
	}
	f, _, err := openFile(path, flag, stat, os.OpenFile)
	return f, err
}

// OpenFileIn is OpenFile for a path below root. The last element of path must not be a link, and no link leads out of root.
func OpenFileIn(root *os.Root, path string, flag int) (*os.File, error) {
	f, named, err := openFile(path, flag, root.Lstat, root.OpenFile)
	if err != nil {
		return nil, err
	}
	// A Root follows links that stay below it, also with O_NOFOLLOW.
	opened, err := f.Stat()
	if err == nil && !os.SameFile(named, opened) {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("it was replaced while it was opened")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// A statter is os.Stat or like it, an opener os.OpenFile or like it.
type (
	statter func(path string) (fs.FileInfo, error)
	opener  func(path string, flag int, perm fs.FileMode) (*os.File, error)
)

// openFile also returns what stat said of the file.
func openFile(path string, flag int, stat statter, open opener) (*os.File, fs.FileInfo, error) {
	// To open some devices has an effect already, so OpenFile asks for the type by name first. The name may change
	// meanwhile, so it opens without blocking and asks the open file again.
	named, err := stat(path)
	if err != nil {
		return nil, nil, opening(err)
	}
	if err := check(path, named.Mode()); err != nil {
		return nil, nil, err
	}
	f, err := open(path, flag|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, opening(err)
	}
	info, err := f.Stat()
	if err == nil {
		err = check(path, info.Mode())
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, named, nil
}

// opening gives a failed stat the operation name "open".
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

// OpenRoot opens a directory as a root, which stays the same when its name changes. The last element of path must not
// be a link: whoever deletes below the root would delete elsewhere.
func OpenRoot(path string) (*os.Root, error) {
	named, err := os.Lstat(path)
	if err != nil {
		return nil, opening(err)
	}
	if !named.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("it is not a directory (%v)", named.Mode())}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	opened, err := root.Stat(".")
	if err == nil && !os.SameFile(named, opened) {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("it was replaced while it was opened")}
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

// ReadText is Read for a file that a person wrote. It also accepts standard input and a shell's <(COMMAND), a pipe
// that the shell opened.
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
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is larger than %d bytes", limit)}
	}
	return data, nil
}

// attempts is how often Create removes what is in its way.
const attempts = 3

// Create creates an empty file for reading and writing. It replaces a file, link or FIFO without opening or following
// it.
func Create(path string, perm fs.FileMode) (*os.File, error) {
	return create(path, perm, os.Remove, os.OpenFile)
}

// CreateIn is Create for a path below root. No link leads out of root.
func CreateIn(root *os.Root, path string, perm fs.FileMode) (*os.File, error) {
	return create(path, perm, root.Remove, root.OpenFile)
}

func create(path string, perm fs.FileMode, remove func(string) error, open opener) (f *os.File, err error) {
	for range attempts {
		if err = remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		f, err = open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, perm)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return f, err
}

// OpenToExtend opens a regular file for reading and writing, or creates it. It refuses links.
func OpenToExtend(path string, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, perm)
	if errors.Is(err, fs.ErrExist) {
		return OpenFile(path, os.O_RDWR)
	}
	return f, err
}

// OpenToOthers says who else may read a file with a secret: "" if nobody. As in OpenSSH, the group may read a file of
// another owner, which is how root gives a key to a service.
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
