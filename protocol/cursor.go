package protocol

import (
	"encoding/binary"
	"math/bits"
)

// cursor reads a payload from start to end and keeps its first error, so that a decoder checks once. After an error
// every read returns zero.
type cursor struct {
	what string // message name, for errors
	b    []byte
	off  int
	err  error
}

func (c *cursor) left() int { return len(c.b) - c.off }

func (c *cursor) fail(code Code, format string, args ...any) {
	if c.err == nil {
		args = append([]any{c.what, c.off}, args...)
		c.err = Errorf(code, "%s at byte %d: "+format, args...)
	}
}

// bytes returns the next n bytes as a view.
func (c *cursor) bytes(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 || n > c.left() {
		c.fail(CodeBadMessage, "%d bytes missing", n-c.left())
		return nil
	}
	c.off += n
	return c.b[c.off-n : c.off : c.off]
}

func (c *cursor) u8() uint8 {
	if p := c.bytes(1); p != nil {
		return p[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if p := c.bytes(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if p := c.bytes(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// uvarint reads a LEB128 number. It refuses longer forms than the shortest, so that each value has one encoding, and
// hashes over encodings are hashes of values.
func (c *cursor) uvarint() uint64 {
	if c.err != nil {
		return 0
	}
	v, n := binary.Uvarint(c.b[c.off:])
	switch {
	case n == 0:
		c.fail(CodeBadMessage, "number cut short")
		return 0
	case n < 0:
		c.fail(CodeBadMessage, "number above 64 bits")
		return 0
	case n > 1 && c.b[c.off+n-1] == 0:
		c.fail(CodeBadMessage, "number not in its shortest form")
		return 0
	}
	c.off += n
	return v
}

// upTo reads a uvarint and refuses values above limit.
func (c *cursor) upTo(limit uint64, name string) uint64 {
	v := c.uvarint()
	if v > limit {
		c.fail(CodeTooLarge, "%s %d above %d", name, v, limit)
		return 0
	}
	return v
}

// end fails if bytes are left.
func (c *cursor) end() {
	if c.err == nil && c.left() > 0 {
		c.fail(CodeBadMessage, "%d bytes too many", c.left())
	}
}

// uvarintLen returns the length of v's shortest encoding.
func uvarintLen(v uint64) int {
	if v == 0 {
		return 1
	}
	return (bits.Len64(v) + 6) / 7
}
