package kdumpfile

import (
	"encoding/binary"
	"fmt"
)

// PageDescLen is the length of a page descriptor in the file.
const PageDescLen = 24

// PageDesc is a page descriptor. The n-th one in the file belongs to the n-th set
// bit of the 2nd bitmap, not to page frame n.
type PageDesc struct {
	Offset    int64  // of the stored bytes in the file; 0 while the page is missing
	Size      uint32 // of the stored bytes; at most the page size
	Flags     uint32 // Codec of this page; 0 is raw, and Size the page size then
	PageFlags uint64 // always 0
}

// Append appends the 24 bytes of d to b.
func (d PageDesc) Append(b []byte, o binary.AppendByteOrder) []byte {
	b = o.AppendUint64(b, uint64(d.Offset)) //nolint:gosec // the same bits
	b = o.AppendUint32(b, d.Size)
	b = o.AppendUint32(b, d.Flags)
	return o.AppendUint64(b, d.PageFlags)
}

// DecodePageDesc decodes the first PageDescLen bytes of b.
func DecodePageDesc(b []byte, o binary.ByteOrder) PageDesc {
	_ = b[PageDescLen-1]
	return PageDesc{
		Offset:    int64(o.Uint64(b)), //nolint:gosec // the same bits; checked where it is used
		Size:      o.Uint32(b[8:]),
		Flags:     o.Uint32(b[12:]),
		PageFlags: o.Uint64(b[16:]),
	}
}

// Missing reports whether d belongs to a page that has not come.
func (d PageDesc) Missing() bool { return d.Offset == 0 }

// check returns an error if d is invalid. It does not check the place of the page.
func (d PageDesc) check(pageSize int) error {
	switch {
	case d.Size == 0 || int64(d.Size) > int64(pageSize):
		return fmt.Errorf("size %d is not in 1 to %d", d.Size, pageSize)
	case d.Flags == 0 && int64(d.Size) != int64(pageSize):
		return fmt.Errorf("a raw page has size %d, not %d", d.Size, pageSize)
	case !Codec(d.Flags).Known():
		return fmt.Errorf("flags %#x are no known compressor", d.Flags)
	}
	return nil
}
