package kdumpfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/anchore/go-lzo"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"github.com/corehaul/corehaul/vmcore"
)

// Codec is the compressor of a page: a value of page_desc.flags, and a bit of the main header's status.
type Codec uint32

// The codecs, DUMP_DH_COMPRESSED_* in makedumpfile's diskdump_mod.h. LZO can only be read.
const (
	Raw    Codec = 0
	Zlib   Codec = 0x1
	LZO    Codec = 0x2
	Snappy Codec = 0x4
	Zstd   Codec = 0x20
)

var codecNames = map[Codec]string{Raw: "none", Zlib: "zlib", LZO: "lzo", Snappy: "snappy", Zstd: "zstd"}

// Known reports whether c is one of the codecs.
func (c Codec) Known() bool {
	switch c {
	case Raw, Zlib, LZO, Snappy, Zstd:
		return true
	}
	return false
}

// String returns the name that ParseCodec takes.
func (c Codec) String() string {
	if name, ok := codecNames[c]; ok {
		return name
	}
	return fmt.Sprintf("codec %#x", uint32(c))
}

// ParseCodec returns the codec called name: none, zlib, lzo, snappy or zstd.
func ParseCodec(name string) (Codec, error) {
	for c, n := range codecNames {
		if strings.EqualFold(n, name) {
			return c, nil
		}
	}
	return Raw, fmt.Errorf("kdumpfile: no compressor is called %q", name)
}

// Encoder compresses pages one by one. It is not safe for concurrent use: use one for each worker.
type Encoder struct {
	codec Codec
	zstd  *zstd.Encoder
	zlib  *zlib.Writer
	buf   bytes.Buffer
	out   []byte
}

// NewEncoder returns an encoder. Levels count from 1, the fastest, in the codec's own terms (zlib 1 to 9; zstd 1 to
// 4, about zstd's 1, 3, 7 and 11). 0 is also the fastest. Snappy and raw have no levels. The error matches
// ErrUnsupported for LZO.
func NewEncoder(c Codec, level int) (*Encoder, error) {
	e := &Encoder{codec: c}
	var err error
	switch c {
	case Raw, Snappy:
	case Zlib:
		e.zlib, err = zlib.NewWriterLevel(&e.buf, min(max(level, 1), 9))
	case Zstd:
		e.zstd, err = newZstdEncoder(level)
	default:
		err = fmt.Errorf("kdumpfile: writing %v pages: %w", c, vmcore.ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// newZstdEncoder makes frames for ZSTD_decompress: with content size, without checksum, with a window of at most a
// page.
func newZstdEncoder(level int) (*zstd.Encoder, error) {
	l := min(max(zstd.EncoderLevel(level), zstd.SpeedFastest), zstd.SpeedBestCompression)
	return zstd.NewWriter(nil,
		zstd.WithEncoderLevel(l),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false),
		zstd.WithSingleSegment(true),
		zstd.WithWindowSize(vmcore.MaxPageSize),
		zstd.WithLowerEncoderMem(true))
}

// EncodePage returns the stored form of page and its page_desc flags: the compressed page if that is smaller,
// otherwise page itself and 0. The result may use the memory of dst or page. It is valid until the next call.
func (e *Encoder) EncodePage(dst, page []byte) (stored []byte, flags uint32) {
	out := e.compress(dst, page)
	if out == nil || len(out) >= len(page) {
		return page, uint32(Raw)
	}
	return out, uint32(e.codec)
}

func (e *Encoder) compress(dst, page []byte) []byte {
	if n := s2.MaxEncodedLen(len(page)); cap(dst) < n {
		dst = e.room(n)
	}
	switch e.codec {
	case Snappy:
		return s2.EncodeSnappy(dst[:cap(dst)], page)
	case Zstd:
		return e.zstd.EncodeAll(page, dst[:0])
	case Zlib:
		return e.deflate(dst, page)
	}
	return nil
}

func (e *Encoder) room(n int) []byte {
	if cap(e.out) < n {
		e.out = make([]byte, n)
	}
	return e.out[:n]
}

func (e *Encoder) deflate(dst, page []byte) []byte {
	e.buf.Reset()
	e.zlib.Reset(&e.buf)
	if _, err := e.zlib.Write(page); err != nil {
		return nil
	}
	if err := e.zlib.Close(); err != nil {
		return nil
	}
	return append(dst[:0], e.buf.Bytes()...)
}

// errLength says that a page decodes to another length than the page size.
var errLength = errors.New("wrong length")

// DecodePage decodes the stored form of a page into dst, which must have the length of a page. It never writes or
// allocates beyond that, and is safe for concurrent use. Errors match vmcore.ErrCorrupt.
func DecodePage(dst, stored []byte, flags uint32) error {
	n, err := decode(dst, stored, Codec(flags))
	if err == nil && n != len(dst) {
		err = fmt.Errorf("%w: %d bytes, not %d", errLength, n, len(dst))
	}
	if err != nil {
		return fmt.Errorf("%w: %v page of %d stored bytes: %w", vmcore.ErrCorrupt, Codec(flags), len(stored), err)
	}
	return nil
}

func decode(dst, stored []byte, c Codec) (int, error) {
	switch c {
	case Raw:
		if len(stored) != len(dst) {
			return len(stored), nil
		}
		return copy(dst, stored), nil
	case Snappy:
		return decodeSnappy(dst, stored)
	case Zstd:
		return decodeZstd(dst, stored)
	case Zlib:
		return decodeZlib(dst, stored)
	case LZO:
		return lzo.Decompress(stored, dst)
	}
	return 0, errors.New("unknown compressor")
}

func decodeSnappy(dst, stored []byte) (int, error) {
	n, err := s2.DecodedLen(stored)
	if err != nil || n != len(dst) {
		return n, err
	}
	_, err = s2.Decode(dst, stored)
	return n, err
}

var zstdDecoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(8<<20), // what ZSTD_decompress takes by default
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return err
	}
	return d
}}

func decodeZstd(dst, stored []byte) (int, error) {
	v := zstdDecoders.Get()
	d, ok := v.(*zstd.Decoder)
	if !ok {
		return 0, v.(error)
	}
	defer zstdDecoders.Put(d)
	out, err := d.DecodeAll(stored, dst[:0:len(dst)])
	return len(out), err
}

// inflater is a zlib reader with its source.
type inflater struct {
	src bytes.Reader
	z   io.ReadCloser
	one [1]byte
}

var inflaters sync.Pool

func decodeZlib(dst, stored []byte) (int, error) {
	f, _ := inflaters.Get().(*inflater)
	if f == nil {
		f = new(inflater)
	}
	defer inflaters.Put(f)
	f.src.Reset(stored)
	if err := f.reset(); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(f.z, dst)
	if err != nil {
		return n, err
	}
	return n, f.expectEnd()
}

func (f *inflater) reset() error {
	if r, ok := f.z.(zlib.Resetter); ok {
		return r.Reset(&f.src, nil)
	}
	z, err := zlib.NewReader(&f.src)
	if err != nil {
		return err
	}
	f.z = z
	return nil
}

// expectEnd reads the checksum and checks that the page ends there.
func (f *inflater) expectEnd() error {
	n, err := f.z.Read(f.one[:])
	switch {
	case n != 0:
		return fmt.Errorf("%w: more than a page", errLength)
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}
