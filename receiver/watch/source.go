package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/vmcore"
)

// source is a dump directory that is only read. Links lead nowhere outside of it, because it is a root.
type source struct{ root *os.Root }

var _ dumpdir.FS = source{}

// sourceFile is a file of a source.
type sourceFile struct{ *os.File }

// Size implements dumpdir.File.
func (f sourceFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// NextData implements vmcore.Holes.
func (f sourceFile) NextData(off int64) (at int64, ok bool) { return plainfile.NextData(f.File, off) }

// open opens a regular file. It looks first, because to open a device may have an effect, and again, because the name may be another's by then.
func (s source) open(name string) (*os.File, error) {
	st, err := s.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, s.notRegular(name, st)
	}
	f, err := s.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if st, err = f.Stat(); err == nil && !st.Mode().IsRegular() {
		err = s.notRegular(name, st)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s source) notRegular(name string, st fs.FileInfo) error {
	return &fs.PathError{Op: "open", Path: path.Join(s.root.Name(), name), Err: fmt.Errorf("%w (%v)", plainfile.ErrNotRegular, st.Mode())}
}

// Open implements dumpdir.FS.
func (s source) Open(name string) (dumpdir.File, error) {
	f, err := s.open(name)
	if err != nil {
		return nil, err
	}
	return sourceFile{f}, nil
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
var errReadOnly = fmt.Errorf("a watched directory is only read: %w", errors.ErrUnsupported)

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

// copyPiece is how much is read, charged and written at once.
const copyPiece = 1 << 20

// maxHoles bounds what a file may claim without having it: a reader of the copy goes over it. The bitmaps of the highest page frame that the
// protocol allows have 256 GiB.
const maxHoles = 512 << 30

// copyFile copies a file, durably. Holes and zeros of the file are holes of the copy.
func (k *taking) copyFile(ctx context.Context, src source, fsys dumpdir.FS, name, to string) (err error) {
	in, err := src.open(name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if holes := plainfile.Holes(st); holes > maxHoles {
		return fmt.Errorf("it has holes of %s", bytesize.Format(holes))
	}
	out, err := fsys.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := k.copyData(ctx, in, out, st.Size()); err != nil {
		return err
	}
	if err := out.Truncate(st.Size()); err != nil {
		return err
	}
	return out.Sync()
}

// copyData copies the first size bytes, without holes, and charges the host for each piece.
func (k *taking) copyData(ctx context.Context, in *os.File, out dumpdir.File, size int64) error {
	buf, account := make([]byte, copyPiece), k.Room.Account(k.ref.Host)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		k.busy("copy "+in.Name(), patience)
		at, ok := plainfile.NextData(in, off)
		if !ok || at >= size {
			return nil
		}
		n, err := in.ReadAt(buf[:min(copyPiece, size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return errChanges
		}
		off = at + int64(n)
		if vmcore.IsZero(buf[:n]) {
			continue
		}
		if err := account.Charge(ctx, uint64(n)); err != nil {
			return err
		}
		if _, err := out.WriteAt(buf[:n], at); err != nil {
			return err
		}
	}
	return nil
}
