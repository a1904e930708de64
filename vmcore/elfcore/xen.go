package elfcore

import (
	"debug/elf"
	"encoding/binary"
	"io"

	"github.com/corehaul/corehaul/vmcore"
)

// maxXenSections is more sections than a file of xl dump-core has (xen/tools/libs/ctrl/xc_core.h lists them).
const maxXenSections = 16

// xenGuest returns an error that matches vmcore.ErrUnsupported for the dump of a Xen guest by xl dump-core. Such a file
// has no program headers: its memory is in sections, and its notes have the name Xen.
func xenGuest(r io.ReaderAt, size int64, o binary.ByteOrder, ehdr []byte) error {
	at, num := o.Uint64(ehdr[40:]), o.Uint16(ehdr[60:])
	if o.Uint16(ehdr[56:]) != 0 || at > 1<<62 || num > maxXenSections {
		return nil
	}
	b, err := readRange(r, size, "section headers", int64(at), int(num)*shdrLen)
	if err != nil {
		return nil //nolint:nilerr // the caller says what is wrong with the file
	}
	for ; len(b) > 0; b = b[shdrLen:] {
		off := o.Uint64(b[24:])
		if elf.SectionType(o.Uint32(b[4:])) != elf.SHT_NOTE || off > 1<<62 {
			continue
		}
		note, err := readRange(r, size, "section", int64(off), 16)
		if err == nil && o.Uint32(note) == 4 && string(note[12:]) == "Xen\x00" {
			return vmcore.Unsupportedf("section", int64(off), "a dump of a Xen guest (xl dump-core), whose memory is not in program headers")
		}
	}
	return nil
}
