package localfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// FS is a directory as a dumpdir.FS. Names begin with Root. Directories that are links count only if they lead to a place
// in the directory.
type FS struct {
	root *os.Root
	name string
}

// Root returns the name of the directory: its path within the file system that the target names.
func (f *FS) Root() string { return f.name }

// Close closes the directory. Open files stay open.
func (f *FS) Close() error { return f.root.Close() }

// below returns a name as the Root has it.
func (f *FS) below(name string) string {
	rest, ok := strings.CutPrefix(path.Clean(name), f.name)
	switch rest = strings.TrimPrefix(rest, "/"); {
	case !ok:
		return "../" + name // which Root refuses
	case rest == "":
		return "."
	}
	return rest
}

// named gives an error the names that the caller knows.
func (f *FS) named(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: strings.TrimSuffix(pe.Op, "at"), Path: path.Join(f.name, pe.Path), Err: pe.Err}
	}
	if le, ok := errors.AsType[*os.LinkError](err); ok {
		return &os.LinkError{Op: "rename", Old: path.Join(f.name, le.Old), New: path.Join(f.name, le.New), Err: le.Err}
	}
	return err
}

func (f *FS) opened(file *os.File, err error) (dumpdir.File, error) {
	return dumpdir.OpenedFile(file, f.named(err))
}

// Create implements dumpdir.FS. It replaces what is there without opening it.
func (f *FS) Create(name string) (dumpdir.File, error) {
	return f.opened(plainfile.CreateIn(f.root, f.below(name), 0o640))
}

// Open implements dumpdir.FS. A link counts as damage, as everything else that is not a regular file.
func (f *FS) Open(name string) (dumpdir.File, error) {
	return f.opened(plainfile.OpenFileIn(f.root, f.below(name), os.O_RDONLY))
}

// OpenRW implements dumpdir.FS.
func (f *FS) OpenRW(name string) (dumpdir.File, error) {
	return f.opened(plainfile.OpenFileIn(f.root, f.below(name), os.O_RDWR))
}

// Rename implements dumpdir.FS.
func (f *FS) Rename(from, to string) error { return f.named(f.root.Rename(f.below(from), f.below(to))) }

// Remove implements dumpdir.FS.
func (f *FS) Remove(name string) error { return f.named(f.root.Remove(f.below(name))) }

// MkdirAll implements dumpdir.FS.
func (f *FS) MkdirAll(name string) error {
	at := f.below(name)
	if info, err := f.root.Stat(at); err == nil && info.IsDir() {
		return nil
	}
	parent := path.Dir(path.Clean(name))
	if err := f.MkdirAll(parent); err != nil {
		return err
	}
	if err := f.root.Mkdir(at, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return f.named(err)
	}
	return f.SyncDir(parent)
}

func (f *FS) openDir(name string) (*os.File, error) {
	d, err := f.root.OpenFile(f.below(name), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	return d, f.named(err)
}

// ReadDir implements dumpdir.FS.
func (f *FS) ReadDir(name string) ([]string, error) {
	d, err := f.openDir(name)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(f.named(err), d.Close())
}

// SyncDir implements dumpdir.FS.
func (f *FS) SyncDir(name string) error {
	d, err := f.openDir(name)
	if err != nil {
		return err
	}
	return errors.Join(f.named(d.Sync()), d.Close())
}

// Lock implements dumpdir.FS with flock(2), which ends with its owner. A power cut leaves nothing that has to become stale.
func (f *FS) Lock(dir string) (io.Closer, error) {
	d, err := f.openDir(dir)
	if err != nil {
		return nil, err
	}
	lock, err := dumpdir.LockDir(d, dir)
	if errors.Is(err, unix.EBADF) {
		// Linux makes it a lock of fcntl(2), which only a file that is open for writing can have.
		err = &Error{Dir: dir, Err: err, Hint: "a mounted NFS export has no locks for directories: write nfs://HOST/EXPORT/PATH"}
	}
	return lock, err
}

// Free returns how many bytes at dir may be written. The blocks that file systems reserve for root are not counted: the
// system that boots next may need them.
func (f *FS) Free(dir string) (int64, error) {
	d, err := f.openDir(dir)
	if err != nil {
		return 0, err
	}
	var st unix.Statfs_t
	err = unix.Fstatfs(int(d.Fd()), &st)
	return int64(st.Bavail) * st.Bsize, errors.Join(err, d.Close())
}
