package kdumpclients

import (
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// magicLen is how many bytes sniff needs.
const magicLen = 16

// form is the format of a file.
type form string

// The forms. Any other file is a small file, whatever its name.
const (
	formPlain form = "plain"
	formFlat  form = "flattened"
	formKdump form = "kdump-compressed"
	formELF   form = "elf"
	// formOtherELF is an ELF file that is no dump. SUSE also sends vmlinux (KDUMP_COPY_KERNEL).
	formOtherELF form = "other elf"

	formBzip2 form = "bzip2"
	formGzip  form = "gzip"
	formLZ4   form = "lz4"
	formXZ    form = "xz"
	formZstd  form = "zstd"
)

// magics has the magics of all forms. In bzip2, a digit follows the magic, and then a block or the end.
var magics = []struct {
	magic string
	form  form
}{
	{flattened.Signature, formFlat},
	{kdumpfile.Signature, formKdump},
	{"DISKDUMP", formKdump},
	{"\x7fELF", formELF},
	{"BZh", formBzip2},
	{"\x1f\x8b", formGzip},
	{"\x04\x22\x4d\x18", formLZ4},
	{"\x02\x21\x4c\x18", formLZ4}, // of lz4 -l
	{"\xfd7zXZ\x00", formXZ},
	{"\x28\xb5\x2f\xfd", formZstd},
}

// sniff returns the form of a file by its first bytes.
func sniff(head []byte) form {
	for _, m := range magics {
		if strings.HasPrefix(string(head), m.magic) {
			return m.form
		}
	}
	return formPlain
}

// compressed reports whether f has another form inside.
func (f form) compressed() bool {
	return f == formBzip2 || f == formGzip || f == formLZ4 || f == formXZ || f == formZstd
}

// decompressor returns a reader of the contents of r. It needs a few MiB, and up to maxDict more for xz and zstd.
func decompressor(f form, r io.Reader) (io.Reader, error) {
	switch f {
	case formBzip2:
		return bzip2.NewReader(r), nil
	case formGzip:
		return gzip.NewReader(r)
	case formLZ4:
		return lz4.NewReader(r), nil
	case formXZ:
		return xz.ReaderConfig{DictCap: 1 << 20, SingleStream: true}.NewReader(&xzGuard{r: r, next: (*xzGuard).streamHeader, want: xzStreamHeaderLen})
	case formZstd:
		// With one decoder it works within Read and starts no goroutine.
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDict))
	}
	return nil, fmt.Errorf("form %s is not compressed", f)
}

// maxDict bounds the dictionary of an xz stream and the window of a zstd stream, in bytes. By default, both programs use at
// most 8 MiB. Their formats allow gigabytes.
const maxDict = 16 << 20

// Sizes of the xz format (The .xz File Format, 1.2.1, 2.1.1 and 3.1).
const (
	xzStreamHeaderLen = 12
	xzFilterLZMA2     = 0x21
)

// xzGuard passes on an xz stream and checks the headers of its blocks, because the decoder allocates any dictionary that
// they ask for. It steps through blocks by the headers of their chunks (LZMA2), up to the index.
type xzGuard struct {
	r     io.Reader
	err   error
	check int // bytes of the checksum behind each block

	part []byte                              // of the next structure
	want int                                 // length of the structure
	skip int64                               // bytes to skip before it
	at   int64                               // bytes of the block so far
	next func(g *xzGuard, part []byte) error // handles the structure; nil: no more checks
}

// Read implements io.Reader.
func (g *xzGuard) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n, err := g.r.Read(p)
	if g.err = g.watch(p[:n]); g.err != nil {
		return 0, g.err
	}
	return n, err
}

func (g *xzGuard) watch(p []byte) error {
	for len(p) > 0 && g.next != nil {
		if g.skip > 0 {
			n := min(g.skip, int64(len(p)))
			g.skip, g.at, p = g.skip-n, g.at+n, p[n:]
			continue
		}
		n := min(g.want-len(g.part), len(p))
		g.part, p = append(g.part, p[:n]...), p[n:]
		g.at += int64(n)
		if len(g.part) < g.want {
			return nil
		}
		part := g.part
		g.part = nil
		if err := g.next(g, part); err != nil {
			return err
		}
	}
	return nil
}

// expect sets the next structure: want bytes, after skip bytes.
func (g *xzGuard) expect(skip int64, want int, next func(*xzGuard, []byte) error) {
	g.skip, g.want, g.next = skip, want, next
}

func (g *xzGuard) streamHeader(b []byte) error {
	// The low 4 bits of the second flag byte are the type of check. Each size has three types.
	sizes := [...]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}
	g.check = sizes[b[7]&0xf]
	g.block()
	return nil
}

// block expects a block, or the index.
func (g *xzGuard) block() { g.expect(0, 1, (*xzGuard).blockSize) }

func (g *xzGuard) blockSize(b []byte) error {
	if b[0] == 0 { // the index
		g.next = nil
		return nil
	}
	g.at = 1
	g.expect(0, int(b[0])*4+3, (*xzGuard).blockHeader)
	return nil
}

// blockHeader reads the header without its first byte: flags, sizes, filters.
func (g *xzGuard) blockHeader(b []byte) error {
	flags, rest := b[0], b[1:]
	for _, there := range []bool{flags&0x40 != 0, flags&0x80 != 0} { // compressed and uncompressed size
		if there {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return fmt.Errorf("%w: block header", errXZ)
			}
			rest = rest[n:]
		}
	}
	if flags&0x3f != 0 || len(rest) < 3 || rest[0] != xzFilterLZMA2 || rest[1] != 1 {
		return fmt.Errorf("%w: filters other than LZMA2", errXZ)
	}
	// Two bits of mantissa, then the exponent: 4 KiB, 6 KiB, 8 KiB and so on.
	code := uint(rest[2])
	if code > 40 || (2|uint64(code&1))<<(code/2+11) > maxDict {
		return fmt.Errorf("%w: it needs a dictionary of more than %d MiB; compress with xz -6", errXZ, maxDict>>20)
	}
	g.expect(0, 1, (*xzGuard).chunk)
	return nil
}

var errXZ = fmt.Errorf("unsupported xz stream")

// chunk reads the control byte of an LZMA2 chunk.
func (g *xzGuard) chunk(b []byte) error {
	switch c := b[0]; {
	case c == 0: // the end of the block: padding to 4 bytes, checksum
		g.expect((4-g.at%4)%4+int64(g.check), 1, (*xzGuard).blockSize)
	case c == 1 || c == 2: // not compressed
		g.expect(0, 2, func(g *xzGuard, b []byte) error {
			g.expect(int64(binary.BigEndian.Uint16(b))+1, 1, (*xzGuard).chunk)
			return nil
		})
	case c >= 0x80:
		props := int64(0)
		if c >= 0xc0 {
			props = 1
		}
		g.expect(2, 2, func(g *xzGuard, b []byte) error {
			g.expect(int64(binary.BigEndian.Uint16(b))+1+props, 1, (*xzGuard).chunk)
			return nil
		})
	default:
		return fmt.Errorf("%w: chunk %#x", errXZ, c)
	}
	return nil
}
