package plainfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CheckDir returns why this process could not make files in a directory, whose path is absolute. missing means that it does not exist, but
// can be made. It changes nothing.
func CheckDir(dir string) (missing bool, err error) {
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at):
			if _, err := os.Lstat(at); err == nil {
				return false, fmt.Errorf("%s is a link to nowhere", at)
			}
			continue
		case err != nil:
			return false, err
		case !info.IsDir():
			return false, fmt.Errorf("%s is not a directory", at)
		}
		err = unix.Faccessat(unix.AT_FDCWD, at, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		switch {
		case err == nil:
			return at != dir, nil
		case at != dir:
			return false, fmt.Errorf("%s does not exist, and this user cannot make it: %w", dir, &fs.PathError{Op: "write in", Path: at, Err: err})
		}
		return false, &fs.PathError{Op: "write in", Path: at, Err: err}
	}
}
