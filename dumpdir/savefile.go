package dumpdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// SaveFile replaces a small file durably. It writes a .tmp file first, so that the name always has a complete file.
// Callers see to it that a name has one writer at a time.
func SaveFile(fsys FS, dir, name string, content []byte) error {
	tmp := path.Join(dir, name+tmpSuffix)
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, path.Join(dir, name)); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// readSmall reads a file of at most limit bytes.
func readSmall(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	return readLimited(f, name, limit)
}

// readLimited reads and closes a file of at most limit bytes.
func readLimited(f File, name string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = &DamageError{File: name, Offset: -1, Text: fmt.Sprintf("more than %d bytes", limit)}
	}
	return b, errors.Join(err, f.Close())
}

func sizeOf(fsys FS, name string) (size int64, there bool) {
	f, err := fsys.Open(name)
	if err != nil {
		return 0, false
	}
	size, err = f.Size()
	return size, f.Close() == nil && err == nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
