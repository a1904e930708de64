package sqlite

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/corehaul/corehaul/storage/index"
)

// besides lists the suffixes of SQLite's files beside a database.
var besides = []string{"-wal", "-shm", "-journal"}

// checkFiles refuses anything but regular files at the paths of the database, because SQLite would follow a link and wait
// for a FIFO.
func checkFiles(path string) error {
	for _, suffix := range append([]string{""}, besides...) {
		if st, err := os.Lstat(path + suffix); err == nil && !st.Mode().IsRegular() {
			return fmt.Errorf("%w: %s is no regular file (%s)", index.ErrUnusable, path+suffix, st.Mode())
		}
	}
	return nil
}

// hide makes the database a file of mode 0600, and what SQLite had beside it: titles and notes tell what was in the memory of machines.
// SQLite gives the files that it makes beside a database the mode of the database. What cannot be changed, because it is another user's or
// the disk is read-only, stays; SQLite says whether it can be used.
func hide(path string) {
	if f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
		_ = f.Close() // it is empty, as a new database
	}
	for _, suffix := range append([]string{""}, besides...) {
		_ = os.Chmod(path+suffix, 0o600)
	}
}

// PutAside moves whatever is at path to aside, or to a longer name if aside is taken, and removes SQLite's files beside it.
// A missing file is no error.
func PutAside(path, aside string) error {
	err := os.Rename(path, aside)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // one is a directory and the other is not
		err = os.Rename(path, fmt.Sprintf("%s.%d", aside, time.Now().UnixNano()))
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	for _, suffix := range besides {
		err = errors.Join(err, os.RemoveAll(path+suffix))
	}
	return err
}
