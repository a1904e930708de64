package plainfile

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Pending is a file that gets its name when it is complete. Until then it has a temporary name in the same directory,
// but Name and all errors use the final name. Its mode is 0600.
type Pending struct {
	*os.File
	tmp, to string // temporary and final path
	fresh   bool   // must not replace a file
}

// CreatePending creates a file that replaces path on Commit. It follows a link at path, and refuses to replace a
// device or a pipe. Commit or Abort ends it.
func CreatePending(path string) (*Pending, error) {
	to := path
	if info, err := os.Stat(path); err == nil {
		if err := check(path, info.Mode()); err != nil {
			return nil, err
		}
		// Otherwise the rename would replace the link; /dev/stdout is a link.
		if to, err = filepath.EvalSymlinks(path); err != nil {
			return nil, &fs.PathError{Op: "create", Path: path, Err: err}
		}
	}
	return createPending(path, to, false)
}

// CreatePendingNew creates a file that becomes path on Commit. If path exists then, even as a link, the error of
// Commit matches fs.ErrExist.
func CreatePendingNew(path string) (*Pending, error) { return createPending(path, path, true) }

func createPending(path, to string, fresh bool) (*Pending, error) {
	tmp := filepath.Join(filepath.Dir(to), ".corehaul-"+rand.Text()+".tmp")
	fd, err := unix.Open(tmp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return &Pending{os.NewFile(uintptr(fd), path), tmp, to, fresh}, nil
}

// Path is the temporary path of the file.
func (p *Pending) Path() string { return p.tmp }

// Commit makes the file durable and gives it its name.
func (p *Pending) Commit() error {
	err := p.Sync()
	if err = errors.Join(err, p.Close()); err == nil {
		err = p.rename()
	}
	if err != nil {
		_ = os.Remove(p.tmp) // the first error says more
		return err
	}
	return SyncDir(filepath.Dir(p.to))
}

// rename gives the file its name. link(2), unlike rename(2), does not replace a file that was created meanwhile. Some
// file systems (FAT) have no links.
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
	if le, ok := errors.AsType[*os.LinkError](err); ok { // it contains the temporary name
		return &fs.PathError{Op: "create", Path: p.Name(), Err: le.Err}
	}
	return err
}

// Abort removes the file. After Commit it does nothing.
func (p *Pending) Abort() {
	if p.Close() == nil {
		_ = os.Remove(p.tmp) // the caller has the first error
	}
}
