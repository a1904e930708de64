// Package dumpfile opens a dump file of any format of the vmcore packages: ELF cores (also /proc/vmcore and
// /proc/kcore), kdump-compressed files, and both of them flattened. The first bytes decide the format.
//
// Safety for hostile input and concurrency are those of the format's package.
package dumpfile

import (
	"debug/elf"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// sniffLen is enough for every signature.
const sniffLen = 16

// Open opens the dump at path. Errors match vmcore.ErrUnknownFormat,
// ErrUnsupported, ErrCorrupt or ErrTruncated, or come from the file system.
func Open(path string) (vmcore.Image, error) {
	f, err := plainfile.Open(path)
	if err != nil {
		return nil, err
	}
	img, err := open(f, path)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return img, nil
}

func open(f *os.File, path string) (vmcore.Image, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	magic, err := sniff(f)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(magic, elf.ELFMAG) {
		// elfcore knows which files to map and which to read.
		img, err := elfcore.Open(path)
		if err != nil {
			return nil, err
		}
		return img, f.Close()
	}
	img, err := New(Holey{f}, st.Size())
	if err != nil {
		return nil, err
	}
	return &owned{Image: img, file: f}, nil
}

// New opens the dump of size bytes in r. The caller keeps ownership of r, which must be safe for concurrent use.
func New(r io.ReaderAt, size int64) (vmcore.Image, error) {
	magic, err := sniff(r)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(magic, flattened.Signature) {
		return plain(r, size, magic)
	}
	flat, err := flattened.New(r, size)
	if err != nil {
		return nil, err
	}
	if magic, err = sniff(flat); err != nil {
		return nil, err
	}
	if flat.Size() > 0 && !vmcore.HasBytes(flat, flat.Size(), 0, int64(len(magic))) {
		return nil, vmcore.Truncatedf("file inside the flattened one", 0, "no record brought its first bytes")
	}
	img, err := plain(flat, flat.Size(), magic)
	if err != nil {
		return nil, err
	}
	info := img.Info()
	info.Format = vmcore.FormatFlattened
	if err := flat.Damaged(); err != nil {
		info.Lackf("%v", err)
	}
	return img, nil
}

func plain(r io.ReaderAt, size int64, magic string) (vmcore.Image, error) {
	switch {
	case strings.HasPrefix(magic, elf.ELFMAG):
		return asImage(elfcore.New(r, size))
	case strings.HasPrefix(magic, kdumpfile.Signature), strings.HasPrefix(magic, "DISKDUMP"):
		return asImage(kdumpfile.New(r, size))
	}
	return nil, vmcore.ErrUnknownFormat
}

// asImage prevents that a nil pointer becomes an Image that is not nil.
func asImage[T vmcore.Image](img T, err error) (vmcore.Image, error) {
	if err != nil {
		return nil, err
	}
	return img, nil
}

// sniff returns the first bytes of r, or all of a shorter one.
func sniff(r io.ReaderAt) (string, error) {
	var b [sniffLen]byte
	n, err := r.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(b[:n]), nil
}

// owned is an image that closes its file.
type owned struct {
	vmcore.Image
	file *os.File
}

// Unwrap returns the image that reads the file.
func (o *owned) Unwrap() vmcore.Image { return o.Image }

func (o *owned) Close() error { return errors.Join(o.Image.Close(), o.file.Close()) }

// Holey is a file that may have holes. It is a vmcore.Holes.
type Holey struct{ *os.File }

// NextData implements vmcore.Holes.
func (h Holey) NextData(off int64) (at int64, ok bool) { return plainfile.NextData(h.File, off) }
