package crashtree

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/packed"
)

// MaxDict bounds the memory of a decompressor, in bytes, unless the caller does. xz -9 needs 64 MiB, zstd --long and --ultra -22 need 128 MiB.
const MaxDict = 128 << 20

// PackedError says that the contents of a compressed file are read only after somebody has unpacked it.
type PackedError struct{ Err error }

// Error says why.
func (e *PackedError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PackedError) Unwrap() error { return e.Err }

// Hints says what to do next.
func (e *PackedError) Hints() []string {
	return []string{"unpack it, all pieces of a --split set into one directory, and import what comes out"}
}

// errPackedPiece says that a piece of a --split set is compressed. Which pieces are one dump is only known when all are unpacked.
var errPackedPiece = errors.New("it is a compressed piece of a --split set")

// formOf returns the compression around a file.
func formOf(f io.ReaderAt) (packed.Form, error) {
	head := make([]byte, packed.HeadLen)
	n, err := f.ReadAt(head, 0)
	return packed.FormOf(head[:n]), ignoreEOF(err)
}

// packedHead returns as many of the first bytes of the contents of a compressed file as tell a dump. There are none if it is damaged; whoever
// unpacks all of it says why. The error is a *PackedError.
func packedHead(f io.ReaderAt, size int64, form packed.Form, maxDict int64) (head []byte, err error) {
	dec, err := packed.NewReader(form, io.NewSectionReader(f, 0, size), cmp.Or(maxDict, MaxDict))
	if err == nil {
		head, err = io.ReadAll(io.LimitReader(dec, elfcore.HeadLen))
	}
	if len(head) == 0 && errors.Is(err, packed.ErrUnsupported) {
		return nil, &PackedError{&streamError{form, err}}
	}
	return head, nil
}

// unpacked returns the dump in a compressed file. A dump is read in any order, so the contents go to a file without a name. It is closed
// with o.
func (im *Importer) unpacked(ctx context.Context, o *opened, f *file, form packed.Form, unfinished string) (of dumpcopy.File, err error) {
	head, err := packedHead(f, f.was.Size(), form, im.MaxDict)
	if err != nil {
		return of, err
	}
	if like, err := beginsLikeDump(bytes.NewReader(head), int64(len(head))); len(head) > 0 && (err != nil || !like) {
		return of, cmp.Or(err, vmcore.ErrUnknownFormat)
	}
	tmp, err := scratch(im.Scratch)
	if err != nil {
		return of, err
	}
	o.scratch = append(o.scratch, tmp)
	broken := im.unpack(ctx, tmp, f, form)
	st, err := tmp.Stat()
	if err != nil {
		return of, err
	}
	_, ofDump := errors.AsType[*streamError](broken)
	switch {
	case errors.Is(broken, packed.ErrUnsupported):
		return of, &PackedError{broken}
	case broken != nil && !ofDump:
		return of, broken
	case broken != nil && st.Size() == 0:
		return of, fmt.Errorf("%w: %w", vmcore.ErrCorrupt, broken)
	}
	if of, err = (&file{File: tmp, was: st}).dump(ctx, unfinished); err != nil {
		return of, err
	}
	if pieceOf(&of) != nil {
		return of, &PackedError{errPackedPiece}
	}
	of.Packed, of.Wrap = true, append([]string{string(form)}, of.Wrap...)
	if broken != nil {
		of.Whole, of.Broken = false, broken.Error()
	}
	return of, nil
}

// scratch creates a file without a name in dir, or among temporary files where dir is empty or takes none.
func scratch(dir string) (*os.File, error) {
	if dir != "" {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err == nil {
			return os.NewFile(uintptr(fd), dir+"/(unpacked)"), nil
		}
		if !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.ENOENT) {
			return nil, &os.PathError{Op: "create a file in", Path: dir, Err: err}
		}
	}
	// NFS has no files without a name.
	tmp, err := os.CreateTemp("", ".corehaul-unpacked-*.tmp")
	if err != nil {
		return nil, err
	}
	return tmp, os.Remove(tmp.Name())
}

// streamError says why a compressed stream is not whole.
type streamError struct {
	form packed.Form
	err  error
}

func (e *streamError) Error() string { return fmt.Sprintf("%s stream: %v", e.form, e.err) }

func (e *streamError) Unwrap() error { return e.err }

// Sizes of unpack, in bytes: of a step, and of what comes between two looks at the free space.
const (
	unpackStep = 256 << 10
	unpackLook = 4 << 20
)

// maxUnpacked bounds what comes out of a compressed file. 16 TiB is the limit of ext4.
const maxUnpacked = 16 << 40

// unpack writes the contents of f to tmp. Zeros become holes, so a bomb of zeros takes no space. The error is a *streamError if the stream is
// not whole; what came of it is in tmp.
func (im *Importer) unpack(ctx context.Context, tmp *os.File, f *file, form packed.Form) error {
	in := &packedInput{ctx: ctx, r: io.NewSectionReader(f, 0, f.was.Size())}
	dec, err := packed.NewReader(form, in, cmp.Or(im.MaxDict, MaxDict))
	buf, at, looked := make([]byte, unpackStep), int64(0), int64(unpackLook)
	for err == nil {
		if looked >= unpackLook {
			looked = 0
			if err := im.roomToUnpack(ctx); err != nil {
				return err
			}
		}
		var n int
		n, err = fill(dec, buf)
		if err := writeSparse(tmp, buf[:n], at); err != nil {
			return err
		}
		at, looked = at+int64(n), looked+int64(n)
		if at > maxUnpacked {
			return fmt.Errorf("%w: it has more than %d bytes", syscall.EFBIG, int64(maxUnpacked))
		}
		if im.Progress != nil {
			im.Progress(f.Name(), uint64(in.n), uint64(f.was.Size()))
		}
	}
	switch {
	case in.err != nil:
		return in.err
	case !errors.Is(err, io.EOF):
		err = &streamError{form, err}
	default:
		err = nil
	}
	return cmp.Or(tmp.Truncate(at), err)
}

// roomToUnpack returns an error unless there is room for the bytes until the next look.
func (im *Importer) roomToUnpack(ctx context.Context) error {
	if im.Room == nil {
		return nil
	}
	free, bounded, err := im.Room.Free(ctx)
	if err == nil && bounded && free < unpackLook {
		err = im.Room.Shortage(0, unpackLook)
	}
	return err
}

// packedInput reads a file, counts its bytes, and keeps the first error, which a decompressor may hide.
type packedInput struct {
	ctx context.Context
	r   io.Reader
	n   int64
	err error
}

// Read implements io.Reader.
func (m *packedInput) Read(p []byte) (int, error) {
	if m.err = cmp.Or(m.err, m.ctx.Err()); m.err != nil {
		return 0, m.err
	}
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.err = ignoreEOF(err)
	return n, err
}

// fill reads until buf is full. Unlike that of io.ReadFull, its error is the reader's.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var more int
		more, err = r.Read(buf[n:])
		n += more
	}
	return n, err
}

// writeSparse writes b at off, and leaves out steps of zeros.
func writeSparse(f *os.File, b []byte, off int64) error {
	if vmcore.IsZero(b) {
		return nil
	}
	_, err := f.WriteAt(b, off)
	return err
}
