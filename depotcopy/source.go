package depotcopy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// source is a dump directory that is only read. Links lead nowhere outside of it, because it is a root.
type source struct{ root *os.Root }

var _ dumpdir.FS = source{}

// Open implements dumpdir.FS.
func (s source) Open(name string) (dumpdir.File, error) {
	return dumpdir.OpenedFile(plainfile.OpenFileIn(s.root, name, os.O_RDONLY))
}

// ReadDir implements dumpdir.FS.
func (s source) ReadDir(name string) ([]string, error) {
	d, err := s.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }() // only read
	names, err := d.Readdirnames(maxNames)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	slices.Sort(names)
	return names, err
}

// errReadOnly is the error of everything that would change a source.
var errReadOnly = fmt.Errorf("a dump directory is only read: %w", errors.ErrUnsupported)

// Create implements dumpdir.FS.
func (source) Create(string) (dumpdir.File, error) { return nil, errReadOnly }

// OpenRW implements dumpdir.FS.
func (source) OpenRW(string) (dumpdir.File, error) { return nil, errReadOnly }

// Rename implements dumpdir.FS.
func (source) Rename(_, _ string) error { return errReadOnly }

// Remove implements dumpdir.FS.
func (source) Remove(string) error { return errReadOnly }

// MkdirAll implements dumpdir.FS.
func (source) MkdirAll(string) error { return errReadOnly }

// SyncDir implements dumpdir.FS.
func (source) SyncDir(string) error { return errReadOnly }

// Lock implements dumpdir.FS.
func (source) Lock(string) (io.Closer, error) { return nil, errReadOnly }

// present returns those of want that are among names.
func present(names, want []string) (list []string) {
	for _, name := range want {
		if slices.Contains(names, name) {
			list = append(list, name)
		}
	}
	return list
}

// keptNames returns the files beside the dump, with their directory.
func keptNames(src source, names []string) (list []string, err error) {
	if !slices.Contains(names, dumpdir.KeptListName) || !slices.Contains(names, dumpdir.KeptDirName) {
		return nil, nil
	}
	kept, err := src.ReadDir(dumpdir.KeptDirName)
	for _, name := range kept {
		if dumpdir.ValidKeptName(name) && len(list) < dumpdir.MaxKept {
			list = append(list, path.Join(dumpdir.KeptDirName, name))
		}
	}
	return list, err
}
