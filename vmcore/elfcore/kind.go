package elfcore

import (
	"debug/elf"
	"encoding/binary"
	"io"

	"github.com/corehaul/corehaul/vmcore"
)

// Kind is the kind of an ELF file.
type Kind int

// The kinds of ELF files.
const (
	KindUnknown Kind = iota // more of the file is needed
	KindKernel              // probably the memory of a machine
	KindOther               // a program, a kernel module, vmlinux, or the core of a process
)

const (
	// HeadLen is the most bytes of a file that KindOf needs.
	HeadLen = 1 << 20
	// notesLooked is how many bytes of notes KindOf reads. The notes of a whole process follow the registers of its
	// first thread, which have less than 16 KiB (AMX).
	notesLooked = 64 << 10
)

// Types of notes that only processes have, with the name CORE (include/uapi/linux/elf.h; fs/binfmt_elf.c
// fill_note_info). NT_PRPSINFO is not one of them: dumps of s390 and /proc/kcore have one.
const (
	ntAuxv    = 6
	ntSiginfo = 0x53494749
	ntFile    = 0x46494c45
)

// KindOf returns the kind of the ELF file that begins with head. It is never KindUnknown if head is the whole file or
// has HeadLen bytes: then a file that may be a dump is KindKernel.
func KindOf(head []byte, whole bool) Kind {
	unknown := KindUnknown
	if whole || len(head) >= HeadLen {
		unknown = KindKernel
	}
	if len(head) < ehdrLen {
		return unknown
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	if elf.Type(order.Uint16(head[16:])) != elf.ET_CORE {
		return KindOther
	}
	if elf.Class(head[elf.EI_CLASS]) != elf.ELFCLASS64 {
		return KindKernel // no kernel's that is read, which the reader says better
	}
	notes, there := firstNotes(head, order)
	switch {
	case ofProcess(notes, order):
		return KindOther
	case !there:
		return unknown
	}
	return KindKernel
}

// IsProcess reports whether the file is the core of a process. gcore writes its notes behind the memory, where KindOf
// does not see them. It is false for other files and for cores without notes.
func IsProcess(r io.ReaderAt, size int64) bool {
	h, err := readHeader(r, size)
	if err != nil {
		return false
	}
	notes, err := h.readNotes(r, size, func(string, ...any) {})
	return err == nil && ofProcess(notes, h.order)
}

// firstNotes returns the part of the first PT_NOTE in head, and whether KindOf needs no more of it.
func firstNotes(head []byte, order binary.ByteOrder) (notes []byte, there bool) {
	size := uint64(len(head))
	at, num := order.Uint64(head[32:]), uint64(order.Uint16(head[56:]))
	for ; num > 0; num-- {
		if at > size || size-at < phdrLen {
			return nil, false
		}
		p := head[at:]
		at += phdrLen
		if elf.ProgType(order.Uint32(p)) != elf.PT_NOTE {
			continue
		}
		off, n := order.Uint64(p[8:]), min(order.Uint64(p[32:]), notesLooked)
		off = min(off, size)
		return head[off:min(off+n, size)], off+n <= size
	}
	return nil, true
}

// ofProcess reports whether notes are those of a process.
func ofProcess(notes []byte, order binary.ByteOrder) bool {
	for n, err := range vmcore.Notes(notes, order) {
		if err == nil && n.Name == "CORE" && (n.Type == ntAuxv || n.Type == ntSiginfo || n.Type == ntFile) {
			return true
		}
	}
	return false
}
