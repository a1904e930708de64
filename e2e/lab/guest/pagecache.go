package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// brokenDir is where the module crashmod expects the file whose page cache it breaks.
const brokenDir = "/page-cache"

// readBroken reads a file that is not in the page cache after the module has taken away the operations that would read it. The file is one
// of ramfs, which has no read of its own.
func readBroken() error {
	if err := os.Mkdir(brokenDir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("ramfs", brokenDir, "ramfs", 0, ""); err != nil {
		return fmt.Errorf("mount ramfs: %w", err)
	}
	path := brokenDir + "/file"
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<20)); err != nil {
		return err
	}
	if err := crashmodKind("page-cache"); err != nil {
		return err
	}
	_, err := os.ReadFile(path)
	return errors.Join(errors.New("the file was read, and no panic"), err)
}
