package dumpdir

import "encoding/binary"

// cursor reads little-endian fields. After a read beyond the end everything is
// zero and ok is false, so that a decoder checks once.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) bytes(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
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

func (c *cursor) u32() uint32 {
	if p := c.bytes(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if p := c.bytes(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// offset reads a file offset or length: 63 bits.
func (c *cursor) offset() int64 {
	v := c.u64()
	if v>>63 != 0 {
		c.bad = true
		return 0
	}
	return int64(v)
}

func (c *cursor) zeros(n int) {
	for _, z := range c.bytes(n) {
		if z != 0 {
			c.bad = true
		}
	}
}

// str reads a string behind its length in one byte.
func (c *cursor) str() string { return string(c.bytes(int(c.u8()))) }

// done reports whether all was read and nothing was missing or wrong.
func (c *cursor) done() bool { return !c.bad && len(c.b) == 0 }
