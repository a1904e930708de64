package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// OS is the local file system. It opens regular files only. Lock is flock(2) on the directory, so it works between
// processes and needs no file.
type OS struct{}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Allocate allocates blocks with fallocate(2). On file systems without it, it does nothing: a later write may run out
// of space.
func (f osFile) Allocate(off, n int64) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = raw.Control(func(fd uintptr) {
		ferr = unix.Fallocate(int(fd), unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if err != nil {
		return err
	}
	if errors.Is(ferr, unix.EOPNOTSUPP) || errors.Is(ferr, unix.ENOSYS) {
		return nil
	}
	return ferr
}

// NextData implements vmcore.Holes.
func (f osFile) NextData(off int64) (at int64, ok bool) { return plainfile.NextData(f.File, off) }

// Forget implements Forgetter with posix_fadvise(2). Dirty pages stay.
func (f osFile) Forget() error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var aerr error
	err = raw.Control(func(fd uintptr) { aerr = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED) })
	return errors.Join(err, aerr)
}

// StartSync implements SyncStarter with sync_file_range(2), which leaves errors for fsync(2).
func (f osFile) StartSync(off, n int64) {
	raw, err := f.SyscallConn()
	if err != nil {
		return // it is closed
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SyncFileRange(int(fd), off, n, unix.SYNC_FILE_RANGE_WRITE) // only a start
	})
}

// OpenedFile returns what package plainfile opened as a File, and its error as the FS of a local disk returns it: a file
// that is not regular counts as damage.
func OpenedFile(f *os.File, err error) (File, error) {
	if errors.Is(err, plainfile.ErrNotRegular) {
		pe, _ := errors.AsType[*fs.PathError](err)
		return nil, &DamageError{File: filepath.Base(pe.Path), Offset: -1, Text: pe.Err.Error()}
	}
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Create implements FS. It replaces what is there without opening it: that may be a planted link.
func (OS) Create(name string) (File, error) {
	return OpenedFile(plainfile.Create(filepath.FromSlash(name), 0o640))
}

// Open implements FS. A file that is not regular counts as damage.
func (OS) Open(name string) (File, error) {
	return OpenedFile(plainfile.Open(filepath.FromSlash(name)))
}

// OpenPlain implements PlainOpener.
func (OS) OpenPlain(name string) (File, error) {
	return OpenedFile(plainfile.OpenFile(filepath.FromSlash(name), os.O_RDONLY|unix.O_NOFOLLOW))
}

// OpenRW implements FS. The last element of the name must not be a link.
func (OS) OpenRW(name string) (File, error) {
	return OpenedFile(plainfile.OpenFile(filepath.FromSlash(name), os.O_RDWR))
}

// Rename implements FS.
func (OS) Rename(from, to string) error {
	return os.Rename(filepath.FromSlash(from), filepath.FromSlash(to))
}

// Exchange implements Exchanger with renameat2(2). ext4, XFS, Btrfs and tmpfs support it, NFS does not.
func (OS) Exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, filepath.FromSlash(a), unix.AT_FDCWD, filepath.FromSlash(b), unix.RENAME_EXCHANGE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		err = errors.ErrUnsupported
	}
	return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
}

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(filepath.FromSlash(name)) }

// MkdirAll implements FS.
func (o OS) MkdirAll(name string) error {
	name = filepath.FromSlash(name)
	if st, err := os.Stat(name); err == nil && st.IsDir() {
		return nil
	}
	parent := filepath.Dir(name)
	if parent != name {
		if err := o.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(name, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return o.SyncDir(parent)
}

// ReadDir implements FS.
func (OS) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// SyncDir implements FS.
func (OS) SyncDir(name string) error {
	return plainfile.SyncDir(filepath.FromSlash(name))
}

// Lock implements FS.
func (OS) Lock(dir string) (io.Closer, error) {
	d, err := plainfile.OpenDir(filepath.FromSlash(dir))
	if err != nil {
		return nil, err
	}
	return LockDir(d, dir)
}

// LockDir takes the lock that OS takes, of an open directory with a name. What it returns closes d. If it fails, it closes d.
func LockDir(d *os.File, name string) (io.Closer, error) {
	err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return &dirLock{d}, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), d.Close())
}

// dirLock is a locked directory.
type dirLock struct{ d *os.File }

// Close releases the lock. To close the directory would not be enough: the lock belongs to all copies of the descriptor, and a
// program that this process is about to start has one until it runs (flock(2)).
func (l *dirLock) Close() error {
	return errors.Join(unix.Flock(int(l.d.Fd()), unix.LOCK_UN), l.d.Close())
}
