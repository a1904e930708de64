package crashtree

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// place is a directory whose files are opened.
type place struct {
	path string
	// root is the directory itself: what is put in the place of path meanwhile, a link or another directory, is not opened. Without it
	// files are opened by their path. That is so for a file that the caller named in a directory that cannot be read.
	root *os.Root
}

// open opens a regular file for reading, and no link.
func (p place) open(name string) (*os.File, error) {
	if p.root == nil {
		return plainfile.OpenFile(filepath.Join(p.path, name), os.O_RDONLY|unix.O_NOFOLLOW)
	}
	f, err := plainfile.OpenFileIn(p.root, name, os.O_RDONLY)
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = &fs.PathError{Op: strings.TrimSuffix(pe.Op, "at"), Path: filepath.Join(p.path, name), Err: pe.Err}
	}
	return f, err
}

// entries returns the sorted names of the directory. It returns an error for more than most names, unless most is 0.
func (p place) entries(most int) ([]fs.DirEntry, error) {
	d, err := p.dir()
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }() // only read
	return readNames(d, p.path, most)
}

// underlying is the error without a path.
func underlying(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// head returns the first bytes of a file, at most limit of them.
func (p place) head(name string, limit int64) (string, error) {
	f, err := p.open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, limit))
	return string(b), err
}

// names returns the sorted names of the directory, none if it cannot be read.
func (p place) names() ([]string, error) {
	d, err := p.dir()
	if errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }() // only read
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// dir opens the directory itself.
func (p place) dir() (*os.File, error) {
	if p.root == nil {
		return plainfile.OpenDir(p.path)
	}
	d, err := p.root.Open(".")
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p.path, Err: underlying(err)}
	}
	return d, nil
}
