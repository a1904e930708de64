package sqlite

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/corehaul/corehaul/storage/index"
)

// besides are what SQLite adds to a database's name for the files beside it.
var besides = []string{"-wal", "-shm", "-journal"}

// checkFiles keeps SQLite from what somebody put in the place of its files: it would follow a link, and wait for a FIFO.
func checkFiles(path string) error {
	for _, suffix := range append([]string{""}, besides...) {
		if st, err := os.Lstat(path + suffix); err == nil && !st.Mode().IsRegular() {
			return fmt.Errorf("%w: %s is no regular file (%s)", index.ErrUnusable, path+suffix, st.Mode())
		}
	}
	return nil
}

// PutAside moves the index at path to aside, or to a longer name where something else has that one, and removes the files
// beside it. What lies there need be no index; nothing is no error.
func PutAside(path, aside string) error {
	err := os.Rename(path, aside)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // a directory replaces no file, nor a file a directory
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
