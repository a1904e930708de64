package symbolfile

import (
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"fmt"
)

// maxFiles bounds the directories and files of one table of lines. The units of kernels have up to 2,000.
const maxFiles = 1 << 16

var errLineHeader = errors.New("the header of a table of lines ends early")

// checkLineHeader looks at the header of a unit's table of lines (DWARF 5, 6.2.4). debug/dwarf makes room for as many directories and files as it
// counts, which may be 2^64. Before DWARF 5, the header counts none.
func checkLineHeader(table []byte, root *dwarf.Entry) error {
	offset, ok := root.Val(dwarf.AttrStmtList).(int64)
	if !ok {
		return ErrNoLine
	}
	if offset < 0 || offset > int64(len(table)) || int64(len(table))-offset < 12 {
		return errLineHeader
	}
	b := table[offset:]
	length, head, wide := unitLength(b)
	if length > uint64(len(b)) || length < uint64(head)+2 { //nolint:gosec // 4 or 12
		return errLineHeader
	}
	c := headerCursor{b: b[head:length], wide: wide}
	if c.uint(2) < 5 {
		return nil
	}
	c.skip(2) // address_size, segment_selector_size
	c.offset()
	c.skip(5) // minimum_instruction_length to line_range
	opcodes := c.uint(1)
	c.skip(max(opcodes, 1) - 1)
	for range 2 { // directories, then files
		if err := c.entries(); err != nil {
			return err
		}
	}
	return nil
}

// headerCursor reads a header. Behind its end, everything is zero and failed is set.
type headerCursor struct {
	b      []byte
	wide   bool // offsets have 64 bits
	failed bool
}

func (c *headerCursor) skip(n uint64) {
	if n > uint64(len(c.b)) {
		c.b, c.failed = nil, true
		return
	}
	c.b = c.b[n:]
}

func (c *headerCursor) uint(size int) (v uint64) {
	if size > len(c.b) {
		c.b, c.failed = nil, true
		return 0
	}
	for i := range size {
		v |= uint64(c.b[i]) << (8 * i)
	}
	c.b = c.b[size:]
	return v
}

func (c *headerCursor) offset() {
	if c.wide {
		c.skip(8)
	} else {
		c.skip(4)
	}
}

func (c *headerCursor) uleb() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.b, c.failed = nil, true
		return 0
	}
	c.b = c.b[n:]
	return v
}

// entries skips a list of directories or files: pairs of content type and form, and a number of entries of them.
func (c *headerCursor) entries() error {
	forms := make([]uint64, c.uint(1))
	for i := range forms {
		c.uleb()
		forms[i] = c.uleb()
	}
	n := c.uleb()
	if n > maxFiles {
		return fmt.Errorf("a table of lines counts %d directories or files, more than %d", n, maxFiles)
	}
	for range n {
		for _, form := range forms {
			if err := c.form(form); err != nil {
				return err
			}
		}
		if c.failed {
			break
		}
	}
	if c.failed {
		return errLineHeader
	}
	return nil
}

// form skips a value (DWARF 5, 7.5.6). The forms are those that may describe a directory or file (6.2.4.1).
func (c *headerCursor) form(form uint64) error {
	switch form {
	case 0x08: // DW_FORM_string
		for c.uint(1) != 0 {
		}
	case 0x0e, 0x1f: // DW_FORM_strp, DW_FORM_line_strp
		c.offset()
	case 0x0b: // DW_FORM_data1
		c.skip(1)
	case 0x05: // DW_FORM_data2
		c.skip(2)
	case 0x06: // DW_FORM_data4
		c.skip(4)
	case 0x07: // DW_FORM_data8
		c.skip(8)
	case 0x1e: // DW_FORM_data16
		c.skip(16)
	case 0x0f: // DW_FORM_udata
		c.uleb()
	case 0x09: // DW_FORM_block
		c.skip(c.uleb())
	default:
		return fmt.Errorf("a table of lines describes files with form %#x", form)
	}
	return nil
}
