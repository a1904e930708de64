package plainfile

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Pending is a file that gets its name when it is whole. Until then it lies beside that, under a name of its own, but
// Name and all errors say the name that it is going to have. Its rights are 0600.
type Pending struct {
	*os.File
	tmp, to string // where it lies, and where it is going to
	fresh   bool   // replaces nothing
}

// CreatePending makes a file that is to become path, in the place of a regular file that has the name, or that a link of that
// name leads to. A device or a pipe is not replaced. Commit or Abort ends it.
func CreatePending(path string) (*Pending, error) {
	to := path
	if info, err := os.Stat(path); err == nil {
		if err := check(path, info.Mode()); err != nil {
			return nil, err
		}
		// Else the rename would replace the link: /dev/stdout is one.
		if to, err = filepath.EvalSymlinks(path); err != nil {
			return nil, &fs.PathError{Op: "create", Path: path, Err: err}
		}
	}
	return createPending(path, to, false)
}

// CreatePendingNew makes a file that is to become path, which must not be there, not even as a link, when it is committed: the
// error of Commit matches fs.ErrExist then.
func CreatePendingNew(path string) (*Pending, error) { return createPending(path, path, true) }

func createPending(path, to string, fresh bool) (*Pending, error) {
	tmp := filepath.Join(filepath.Dir(to), ".corehaul-"+rand.Text()+".tmp")
	fd, err := unix.Open(tmp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return &Pending{os.NewFile(uintptr(fd), path), tmp, to, fresh}, nil
}

// Path is where the file lies until it is committed.
func (p *Pending) Path() string { return p.tmp }

// Commit makes the file durable and gives it its name.
func (p *Pending) Commit() error {
	err := p.Sync()
	if err = errors.Join(err, p.Close()); err == nil {
		err = p.rename()
	}
	if err != nil {
		_ = os.Remove(p.tmp) // the error that led here says more
		return err
	}
	return SyncDir(filepath.Dir(p.to))
}

// rename gives the file its name. A link, unlike a rename, does not replace a file that came in between; some file systems
// (FAT) have none.
func (p *Pending) rename() error {
	var err error
	if p.fresh {
		if err = os.Link(p.tmp, p.to); err == nil {
			err = os.Remove(p.tmp)
		} else if !errors.Is(err, fs.ErrExist) {
			err = os.Rename(p.tmp, p.to)
		}
	} else {
		err = os.Rename(p.tmp, p.to)
	}
	if le, ok := errors.AsType[*os.LinkError](err); ok { // names the temporary name
		return &fs.PathError{Op: "create", Path: p.Name(), Err: le.Err}
	}
	return err
}

// Abort ends a file that is not to be. After a commit it does nothing.
func (p *Pending) Abort() {
	if p.Close() == nil {
		_ = os.Remove(p.tmp) // whoever aborts has an error that says more
	}
}
