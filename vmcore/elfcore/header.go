package elfcore

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// Sizes of the ELF64 structures.
const (
	ehdrLen = 64
	phdrLen = 56
	shdrLen = 64
)

// pnXnum in e_phnum: the real number is in sh_info of section 0.
const pnXnum = 0xffff

// Limits of what is read.
const (
	// maxPhdrs is 16 times the limit of e_phnum: one for each GiB of 1 PiB.
	maxPhdrs = 1 << 20
)

// efIncomplete in e_flags is makedumpfile's mark of an incomplete dump.
const efIncomplete = 1

// header is the ELF header and the program headers.
type header struct {
	order      binary.ByteOrder
	machine    elf.Machine
	incomplete bool
	loads      []vmcore.Segment
	notes      []vmcore.Segment // PT_NOTEs; only Offset and Filesz are used
}

func readHeader(r io.ReaderAt, size int64) (*header, error) {
	b, err := readRange(r, size, "ELF header", 0, ehdrLen)
	if err != nil {
		if size < 4 || errors.Is(err, vmcore.ErrTruncated) && !hasMagic(r) {
			return nil, vmcore.ErrUnknownFormat
		}
		return nil, err
	}
	h := &header{}
	if err := h.decodeIdent(b); err != nil {
		return nil, err
	}
	o := h.order
	if t := elf.Type(o.Uint16(b[16:])); t != elf.ET_CORE {
		return nil, vmcore.Unsupportedf("e_type", 16, "%v is not a core", t)
	}
	h.machine = elf.Machine(o.Uint16(b[18:]))
	switch h.machine {
	case elf.EM_386, elf.EM_ARM, elf.EM_PPC:
		// kexec-tools writes ELFCLASS64 for i386 with PAE too.
		return nil, vmcore.Unsupportedf("e_machine", 18, "%v is a 32-bit machine; only dumps of 64-bit machines are read", h.machine)
	}
	if err := xenGuest(r, size, o, b); err != nil {
		return nil, err
	}
	h.incomplete = o.Uint32(b[48:])&efIncomplete != 0
	if n := o.Uint16(b[54:]); n != phdrLen {
		return nil, vmcore.Corruptf("e_phentsize", 54, "%d, not %d", n, phdrLen)
	}
	num := uint64(o.Uint16(b[56:]))
	if num == pnXnum {
		if num, err = extendedNum(r, size, o, o.Uint64(b[40:])); err != nil {
			return nil, err
		}
	}
	return h, h.readPhdrs(r, size, o.Uint64(b[32:]), num)
}

func hasMagic(r io.ReaderAt) bool {
	var b [4]byte
	_, err := r.ReadAt(b[:], 0)
	return err == nil && string(b[:]) == elf.ELFMAG
}

func (h *header) decodeIdent(b []byte) error {
	if string(b[:4]) != elf.ELFMAG {
		return vmcore.ErrUnknownFormat
	}
	switch elf.Data(b[elf.EI_DATA]) {
	case elf.ELFDATA2LSB:
		h.order = binary.LittleEndian
	case elf.ELFDATA2MSB:
		h.order = binary.BigEndian
	default:
		return vmcore.Corruptf("EI_DATA", elf.EI_DATA, "%d is no byte order", b[elf.EI_DATA])
	}
	switch elf.Class(b[elf.EI_CLASS]) {
	case elf.ELFCLASS64:
		return nil
	case elf.ELFCLASS32:
		return vmcore.Unsupportedf("EI_CLASS", elf.EI_CLASS, "a core of a 32-bit machine; only dumps of 64-bit machines are read")
	}
	return vmcore.Corruptf("EI_CLASS", elf.EI_CLASS, "%d is no class", b[elf.EI_CLASS])
}

// extendedNum returns the number of program headers of a file with more than e_phnum can hold.
func extendedNum(r io.ReaderAt, size int64, o binary.ByteOrder, shoff uint64) (uint64, error) {
	if shoff == 0 || shoff > 1<<62 {
		return 0, vmcore.Corruptf("e_shoff", 40, "%#x, but e_phnum is PN_XNUM", shoff)
	}
	b, err := readRange(r, size, "section 0", int64(shoff), shdrLen)
	if err != nil {
		return 0, err
	}
	return uint64(o.Uint32(b[44:])), nil
}

func (h *header) readPhdrs(r io.ReaderAt, size int64, off, num uint64) error {
	if off > 1<<62 {
		return vmcore.Corruptf("e_phoff", 32, "%#x", off)
	}
	if num > maxPhdrs {
		return vmcore.Corruptf("e_phnum", 56, "%d program headers are more than %d", num, maxPhdrs)
	}
	at := int64(off)
	if at > size || int64(num)*phdrLen > size-at {
		return vmcore.Truncatedf("program headers", at, "%d of them do not fit in a file of %d bytes", num, size)
	}
	const batch = 1024
	for num > 0 {
		n := min(num, batch)
		b, err := readRange(r, size, "program headers", at, int(n)*phdrLen)
		if err != nil {
			return err
		}
		for ; len(b) > 0; b = b[phdrLen:] {
			if err := h.addPhdr(b, at); err != nil {
				return err
			}
			at += phdrLen
		}
		num -= n
	}
	return nil
}

func (h *header) addPhdr(b []byte, at int64) error {
	o := h.order
	s := vmcore.Segment{
		Vaddr:  mem.VirtAddr(o.Uint64(b[16:])),
		Paddr:  mem.PhysAddr(o.Uint64(b[24:])),
		Filesz: o.Uint64(b[32:]),
		Memsz:  o.Uint64(b[40:]),
	}
	off := o.Uint64(b[8:])
	t := elf.ProgType(o.Uint32(b))
	if t != elf.PT_LOAD && t != elf.PT_NOTE {
		return nil
	}
	if off > 1<<62 || s.Filesz > 1<<62 {
		return vmcore.Corruptf("program header", at, "%v of %#x bytes at file offset %#x", t, s.Filesz, off)
	}
	s.Offset = int64(off)
	if t == elf.PT_NOTE {
		h.notes = append(h.notes, s)
		return nil
	}
	if s.Memsz == 0 {
		// QEMU and old kexec-tools left p_memsz 0 in places.
		s.Memsz = s.Filesz
	}
	h.loads = append(h.loads, s)
	return nil
}

// readNotes returns the contents of the PT_NOTEs, one after the other.
func (h *header) readNotes(r io.ReaderAt, size int64, warn func(string, ...any)) ([]byte, error) {
	for _, s := range h.notes {
		if end := s.FileEnd(); end < s.Offset || end > size {
			return nil, vmcore.Truncatedf("PT_NOTE", s.Offset, "%d bytes of notes are not in a file of %d bytes", s.Filesz, size)
		}
	}
	read := func(off int64, n int) ([]byte, error) { return readRange(r, size, "PT_NOTE", off, n) }
	return vmcore.ReadNotes(read, h.order, h.notes, warn)
}

// readRange reads n bytes at off. They must be in the file.
func readRange(r io.ReaderAt, size int64, what string, off int64, n int) ([]byte, error) {
	if have := vmcore.BytesFrom(r, size, off, int64(n)); have < int64(n) {
		return nil, vmcore.Truncatedf(what, off, "of %d bytes %d are there, in a file of %d bytes", n, have, size)
	}
	b := make([]byte, n)
	return b, readFull(r, b, off)
}

// readFull fills b from offset off. A file that became shorter is truncated.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return vmcore.Truncatedf("file", off, "%d of %d bytes", n, len(b))
	}
	return err
}
