// Package vmcoretest builds small dump files for tests from a description in Go.
//
// The files follow the programs that write these formats (the kernel, kexec-tools,
// makedumpfile). The package shares no code with the readers of this module. It is for
// tests only and panics on invalid descriptions.
package vmcoretest

import (
	"encoding/binary"
	"math/rand/v2"
)

// Order has both interfaces of byte order in encoding/binary.
type Order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// Load is a PT_LOAD of a Core.
type Load struct {
	Vaddr, Paddr uint64
	Data         []byte
	Memsz        uint64 // 0: as long as Data
	Offset       uint64 // 0: behind the previous segment
	Filesz       uint64 // 0: as long as Data
}

// Core is an ELF core.
type Core struct {
	Order   Order // nil: little endian
	Machine uint16
	Class   byte // 0: ELFCLASS64
	Type    uint16
	Flags   uint32
	Notes   []byte
	Loads   []Load
	// ManyPhdrs writes the number of program headers to section 0.
	ManyPhdrs bool
}

const (
	ehdrLen = 64
	phdrLen = 56
	align   = 4096
)

// Bytes returns the file.
func (c *Core) Bytes() []byte {
	var o Order = binary.LittleEndian
	if c.Order != nil {
		o = c.Order
	}
	n := uint64(1 + len(c.Loads))
	phoff := uint64(ehdrLen)
	var shoff uint64
	if c.ManyPhdrs {
		shoff, phoff = ehdrLen, 2*ehdrLen
	}
	b := c.header(o, phoff, shoff, n)
	notes := phoff + n*phdrLen
	b = phdr(b, o, 4, 0, 0, notes, uint64(len(c.Notes)), 0)
	var data []byte
	at := (notes + uint64(len(c.Notes)) + align - 1) / align * align
	base := at
	for _, l := range c.Loads {
		off, filesz, memsz := l.Offset, l.Filesz, l.Memsz
		if off == 0 {
			off = at
		}
		if filesz == 0 {
			filesz = uint64(len(l.Data))
		}
		if memsz == 0 {
			memsz = uint64(len(l.Data))
		}
		b = phdr(b, o, 1, l.Vaddr, l.Paddr, off, filesz, memsz)
		data = append(data, l.Data...)
		at += uint64(len(l.Data))
	}
	b = append(b, c.Notes...)
	b = append(b, make([]byte, base-uint64(len(b)))...)
	return append(b, data...)
}

func (c *Core) header(o Order, phoff, shoff, n uint64) []byte {
	class, data, typ := c.Class, byte(1), c.Type
	if class == 0 {
		class = 2
	}
	if o.Uint16([]byte{0, 1}) == 1 {
		data = 2
	}
	if typ == 0 {
		typ = 4
	}
	machine := c.Machine
	if machine == 0 {
		machine = 62
	}
	b := append([]byte("\x7fELF"), class, data, 1)
	b = append(b, make([]byte, 9)...)
	b = o.AppendUint16(b, typ)
	b = o.AppendUint16(b, machine)
	b = o.AppendUint32(b, 1)
	b = o.AppendUint64(b, 0)
	b = o.AppendUint64(b, phoff)
	b = o.AppendUint64(b, shoff)
	b = o.AppendUint32(b, c.Flags)
	b = o.AppendUint16(b, ehdrLen)
	b = o.AppendUint16(b, phdrLen)
	num := uint16(n)
	if c.ManyPhdrs {
		num = 0xffff
	}
	b = o.AppendUint16(b, num)
	b = o.AppendUint16(b, 64)
	b = o.AppendUint16(b, 1)
	b = o.AppendUint16(b, 0)
	if c.ManyPhdrs {
		sh := make([]byte, 64)
		o.PutUint32(sh[44:], uint32(n))
		b = append(b, sh...)
	}
	return b
}

func phdr(b []byte, o Order, typ uint32, vaddr, paddr, off, filesz, memsz uint64) []byte {
	b = o.AppendUint32(b, typ)
	b = o.AppendUint32(b, 7)
	for _, v := range []uint64{off, vaddr, paddr, filesz, memsz, 0} {
		b = o.AppendUint64(b, v)
	}
	return b
}

// Note returns an ELF note.
func Note(o Order, name string, typ uint32, desc []byte) []byte {
	b := o.AppendUint32(nil, uint32(len(name)+1))
	b = o.AppendUint32(b, uint32(len(desc)))
	b = o.AppendUint32(b, typ)
	b = pad4(append(b, name...), 1)
	return pad4(append(b, desc...), 0)
}

// pad4 appends that many zeros, and then up to 3 to reach a multiple of 4.
func pad4(b []byte, more int) []byte {
	b = append(b, make([]byte, more)...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Prstatus returns the NT_PRSTATUS note of an x86-64 CPU.
func Prstatus(o Order, pid uint32, regs []byte) []byte {
	desc := make([]byte, 336)
	o.PutUint32(desc[32:], pid)
	copy(desc[112:], regs)
	return Note(o, "CORE", 1, desc)
}

// VMCOREINFO returns the note with a text.
func VMCOREINFO(o Order, text string) []byte { return Note(o, "VMCOREINFO", 0, []byte(text)) }

// Pages returns n pages of a size, different for each seed. They compress to different degrees, and every fourth one is zero.
func Pages(seed uint64, n, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n*size)
	for i := range n {
		p := b[i*size : (i+1)*size]
		switch i % 4 {
		case 0:
			for j := range p {
				p[j] = byte(r.Uint32() & 0xff)
			}
		case 1:
			for j := range p {
				p[j] = "abcd"[r.IntN(4)]
			}
		case 2:
			binary.LittleEndian.PutUint64(p, r.Uint64())
		}
	}
	return b
}
