package packed

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// Sizes of the xz format (The .xz File Format, 1.2.1, 2.1.1, 2.1.2, 2.2, 3.1 and 4).
const (
	xzStreamHeaderLen = 12
	xzStreamFooterLen = 12
	xzIndexCRCLen     = 4
	xzPaddingLen      = 4 // of which there may be many between streams
	xzFilterLZMA2     = 0x21
)

// maxXZBlocks bounds the blocks of a stream, because the decoder keeps 16 bytes of each until the index. The smallest blocks that programs
// make by themselves have a MiB (pixz; xz -T makes larger ones).
const maxXZBlocks = 1 << 20

// The decoder makes a dictionary for each block, and zeroing it takes time. So dictionaries together may have freeDicts bytes, and more for each byte
// of contents. xz -9 --block-size=1MiB makes 64 for each.
const (
	freeDicts    = 4 << 30
	dictsPerByte = 64
)

// xzGuard passes on an xz stream and checks the headers of its blocks, because the decoder allocates any dictionary that
// they ask for. It steps through blocks by the headers of their chunks (LZMA2), and over the index to the next stream.
type xzGuard struct {
	r     io.Reader
	max   int64 // bytes of a dictionary
	err   error
	check int   // bytes of the checksum behind each block
	dicts int64 // bytes of the dictionaries of all blocks so far
	out   int64 // bytes of contents so far
	// Of the present stream: its blocks, and of its index the numbers that are to come (the first one says how many), and the present one.
	blocks int
	left   uint64
	num    uint64
	shift  uint

	part []byte                              // of the next structure
	want int                                 // length of the structure
	skip int64                               // bytes to skip before it
	at   int64                               // bytes of the block or index so far
	next func(g *xzGuard, part []byte) error // handles the structure
}

func newXZGuard(r io.Reader, maxDict int64) *xzGuard {
	return &xzGuard{r: r, max: maxDict, next: (*xzGuard).streamHeader, want: xzStreamHeaderLen}
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
	for len(p) > 0 {
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
	g.check, g.blocks = sizes[b[7]&0xf], 0
	g.block()
	return nil
}

// block expects a block, or the index.
func (g *xzGuard) block() { g.expect(0, 1, (*xzGuard).blockSize) }

func (g *xzGuard) blockSize(b []byte) error {
	g.at = 1
	if b[0] == 0 { // the index
		g.number(0)
		return nil
	}
	if g.blocks++; g.blocks > maxXZBlocks {
		return fmt.Errorf("%w: more than %d blocks", ErrUnsupported, maxXZBlocks)
	}
	g.expect(0, int(b[0])*4+3, (*xzGuard).blockHeader)
	return nil
}

// number expects a number of the index. left is how many there are with it; 0 means the first one.
func (g *xzGuard) number(left uint64) {
	g.left, g.num, g.shift = left, 0, 0
	g.expect(0, 1, (*xzGuard).numberByte)
}

// numberByte reads a byte of a number of the index: the number of records, and two numbers of each record.
func (g *xzGuard) numberByte(b []byte) error {
	g.num |= uint64(b[0]&0x7f) << g.shift
	switch g.shift += 7; {
	case b[0]&0x80 != 0 && g.shift < 63:
		g.expect(0, 1, (*xzGuard).numberByte)
	case b[0]&0x80 != 0 || g.left == 0 && g.num != uint64(g.blocks): //nolint:gosec // counted
		return fmt.Errorf("%w: index", ErrUnsupported)
	case g.left == 0 && g.num > 0:
		g.number(2 * g.num)
	case g.left > 1:
		g.number(g.left - 1)
	default:
		g.expect((4-g.at%4)%4+xzIndexCRCLen+xzStreamFooterLen, xzPaddingLen, (*xzGuard).padding)
	}
	return nil
}

// padding reads what follows a stream: padding, or the beginning of another stream.
func (g *xzGuard) padding(b []byte) error {
	switch string(b) {
	case "\x00\x00\x00\x00":
		g.expect(0, xzPaddingLen, (*xzGuard).padding)
	case "\xfd7zX":
		g.part = b
		g.expect(0, xzStreamHeaderLen, (*xzGuard).streamHeader)
	default: // the decoder refuses it, after it has given what came before
		g.expect(math.MaxInt64, xzPaddingLen, (*xzGuard).padding)
	}
	return nil
}

// blockHeader reads the header without its first byte: flags, sizes, filters.
func (g *xzGuard) blockHeader(b []byte) error {
	flags, rest := b[0], b[1:]
	for _, there := range []bool{flags&0x40 != 0, flags&0x80 != 0} { // compressed and uncompressed size
		if there {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return fmt.Errorf("%w: block header", ErrUnsupported)
			}
			rest = rest[n:]
		}
	}
	if flags&0x3f != 0 || len(rest) < 3 || rest[0] != xzFilterLZMA2 || rest[1] != 1 {
		return fmt.Errorf("%w: filters other than LZMA2", ErrUnsupported)
	}
	// Two bits of mantissa, then the exponent: 4 KiB, 6 KiB, 8 KiB and so on.
	code := uint(rest[2])
	dict := (2 | int64(code&1)) << (code/2 + 11)
	if code > 40 || dict > g.max {
		return &DictError{XZ, g.max}
	}
	if g.dicts += dict; (g.dicts-freeDicts)/dictsPerByte > g.out {
		return fmt.Errorf("%w: its blocks have too few bytes for their dictionaries of %d KiB", ErrUnsupported, dict>>10)
	}
	g.expect(0, 1, (*xzGuard).chunk)
	return nil
}

// chunk reads the control byte of an LZMA2 chunk.
func (g *xzGuard) chunk(b []byte) error {
	switch c := b[0]; {
	case c == 0: // the end of the block: padding to 4 bytes, checksum
		g.expect((4-g.at%4)%4+int64(g.check), 1, (*xzGuard).blockSize)
	case c == 1 || c == 2: // not compressed
		g.expect(0, 2, func(g *xzGuard, b []byte) error {
			n := int64(binary.BigEndian.Uint16(b)) + 1
			g.out += n
			g.expect(n, 1, (*xzGuard).chunk)
			return nil
		})
	case c >= 0x80: // 5 bits of the control byte and 2 bytes are the size of the contents, 2 bytes that of the chunk
		props := int64(0)
		if c >= 0xc0 {
			props = 1
		}
		g.expect(0, 4, func(g *xzGuard, b []byte) error {
			g.out += int64(c&0x1f)<<16 + int64(binary.BigEndian.Uint16(b)) + 1
			g.expect(int64(binary.BigEndian.Uint16(b[2:]))+1+props, 1, (*xzGuard).chunk)
			return nil
		})
	default:
		return fmt.Errorf("%w: chunk %#x", ErrUnsupported, c)
	}
	return nil
}
