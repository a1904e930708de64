// Package packed reads dump files that were compressed as a whole, by bzip2, gzip, lz4, xz or zstd: what a stock client of kdump sends, or an
// administrator leaves in place of an old dump.
//
// The input is hostile. A reader needs a few MiB, and for xz and zstd up to the dictionary that its caller allows. How much comes out is
// for the caller to bound. A panic of a decompressor is an error of Read. Readers are for one goroutine.
package packed

import (
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// Form is the format of a compressed file.
type Form string

// The forms. Plain is that of every other file.
const (
	Plain Form = ""
	Bzip2 Form = "bzip2"
	Gzip  Form = "gzip"
	LZ4   Form = "lz4"
	XZ    Form = "xz"
	Zstd  Form = "zstd"
)

// HeadLen is how many bytes FormOf needs.
const HeadLen = 6

// magics has the magics of all forms. In bzip2, a digit follows the magic, and then a block or the end.
var magics = []struct {
	magic string
	form  Form
}{
	{"BZh", Bzip2},
	{"\x1f\x8b", Gzip},
	{"\x04\x22\x4d\x18", LZ4},
	{"\x02\x21\x4c\x18", LZ4}, // of lz4 -l
	{"\xfd7zXZ\x00", XZ},
	{"\x28\xb5\x2f\xfd", Zstd},
}

// FormOf returns the form of a file by its first bytes.
func FormOf(head []byte) Form {
	for _, m := range magics {
		if strings.HasPrefix(string(head), m.magic) {
			return m.form
		}
	}
	return Plain
}

// ErrUnsupported says that a stream may be whole, but is not read.
var ErrUnsupported = errors.New("unsupported stream")

// DictError says that a file needs more memory than the caller of NewReader allows. It matches ErrUnsupported.
type DictError struct {
	Form Form
	Max  int64 // bytes
}

// Error names the limit.
func (e *DictError) Error() string {
	what := "dictionary"
	if e.Form == Zstd {
		what = "window"
	}
	return fmt.Sprintf("it needs a %s of more than %d MiB", what, e.Max>>20)
}

// Is makes the error match ErrUnsupported.
func (*DictError) Is(target error) bool { return target == ErrUnsupported }

// NewReader returns a reader of the contents of r. maxDict bounds the dictionary of an xz stream and the window of a zstd stream, in bytes;
// beyond it, the error of Read matches a *DictError. Both programs use at most 8 MiB by default, and their formats allow gigabytes.
func NewReader(f Form, r io.Reader, maxDict int64) (dec io.Reader, err error) {
	defer recovered(&err)
	switch f {
	case Bzip2:
		dec = bzip2.NewReader(r)
	case Gzip:
		dec, err = gzip.NewReader(r)
	case LZ4:
		dec = lz4.NewReader(r)
	case XZ:
		dec, err = xz.ReaderConfig{DictCap: 1 << 20}.NewReader(newXZGuard(r, maxDict))
	case Zstd:
		// With one decoder it works within Read and starts no goroutine.
		dec, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(maxDict))) //nolint:gosec // positive
	default:
		err = fmt.Errorf("form %q is not compressed", f)
	}
	if err != nil {
		return nil, err
	}
	return &reader{dec: dec, form: f, maxDict: maxDict}, nil
}

// reader gives the errors of a decompressor their meaning.
type reader struct {
	dec     io.Reader
	form    Form
	maxDict int64
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (n int, err error) {
	defer recovered(&err)
	n, err = r.dec.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = &DictError{r.form, r.maxDict}
	}
	return n, err
}

// recovered makes an error of a panic, because a bug in a decompressor must not cost the dumps of all hosts.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("internal error of the decompressor: %v", p)
	}
}
