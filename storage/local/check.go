package local

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// Check returns why this process could not keep a store under dir: Open to write and CheckWritable would fail. It changes nothing. A
// directory that is missing is fine if it can be made. The error of several is that of errors.Join.
func Check(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	missing, err := plainfile.CheckDir(dir)
	if err != nil || missing {
		return err
	}
	var errs []error
	for _, name := range []string{dumpdir.DumpsName, trashName, incomingName} {
		_, err := plainfile.CheckDir(filepath.Join(dir, name))
		errs = append(errs, err)
	}
	path := filepath.Join(dir, indexName)
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, &fs.PathError{Op: "write", Path: path, Err: err})
	}
	return errors.Join(errs...)
}
