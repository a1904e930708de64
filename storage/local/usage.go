package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/storage"
)

// Usage implements storage.Store. It counts disk blocks, because a vmcore may have holes.
func (s *Store) Usage(ctx context.Context, host string) (storage.Usage, error) {
	var u storage.Usage
	dumps, err := subdirs(s.hostDir(host))
	if err != nil {
		return u, err
	}
	challengers, err := subdirs(filepath.Join(s.dir, nextName, host))
	if err != nil {
		return u, err
	}
	taking, err := subdirs(filepath.Join(s.dir, incomingName, host))
	if err != nil {
		return u, err
	}
	u.Dumps = len(dumps)
	dirs := slices.Concat(dumps, challengers, taking)
	for _, name := range []string{replacedName, damagedName} {
		aside, err := subdirs(filepath.Join(s.dir, name))
		if err != nil {
			return u, err
		}
		for _, dir := range aside {
			if hostOfAside(filepath.Base(dir)) == host {
				dirs = append(dirs, dir)
			}
		}
	}
	for _, dir := range dirs {
		if err := ctx.Err(); err != nil {
			return u, err
		}
		n, err := blocksIn(dir)
		if err != nil {
			return u, err
		}
		u.Bytes += n
	}
	return u, nil
}

// hostOfAside returns the host in a directory name that moveTo made.
func hostOfAside(name string) string {
	for range 2 {
		name = name[:max(0, strings.LastIndexByte(name, '-'))]
	}
	return name
}

// subdirs returns the directories in dir, or none if dir does not exist.
func subdirs(dir string) (dirs []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(dir, e.Name()))
		}
	}
	return dirs, err
}

// tempSuffix is the suffix of files that are not published yet: see docs/layout.md.
const tempSuffix = ".tmp"

// blocksIn returns the bytes that the published files of a dump use on the disk.
func blocksIn(dir string) (sum uint64, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !strings.HasSuffix(path, tempSuffix) {
			var st fs.FileInfo
			if st, err = e.Info(); err == nil {
				sum += plainfile.Blocks(st)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		return err
	})
	return sum, err
}

// holesOf returns the bytes of a file that use no blocks; 0 if it is not there.
func holesOf(path string) uint64 {
	st, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return plainfile.Holes(st)
}
