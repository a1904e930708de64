package symbolfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// place says where the file lies in the memory of a kernel.
type place struct {
	slide    uint64            // what is added to addresses of a kernel image, modulo 2^64
	sections map[uint16]uint64 // addresses of sections of a module
}

// ErrNoPlace says that a kernel's symbols do not show where a file lies in memory: it is not of this kernel.
var ErrNoPlace = errors.New("its symbols are not those of the crashed kernel")

// Place finds out where the file lies in a kernel's memory, by the addresses of symbols there. address returns false for a name that is unknown or
// that several symbols have. It has to be called before Lines.
func (f *File) Place(address func(name string) (uint64, bool)) error {
	return f.guard(func() error {
		if f.elf.Type == elf.ET_REL {
			return f.placeSections(address)
		}
		return f.placeImage(address)
	})
}

// placeImage finds the offset of KASLR: all of a kernel image moves by it.
func (f *File) placeImage(address func(name string) (uint64, bool)) error {
	err := ErrNoPlace
	symbolErr := f.symbols(func(name string, s symbol) {
		if name != "_stext" && name != "_text" {
			return
		}
		if at, ok := address(name); ok && err != nil {
			f.place.slide, err = at-s.value, nil
		}
	})
	return errors.Join(symbolErr, err)
}

// placeSections finds the addresses of a module's sections: most of the functions of each have to agree. Names that the file has
// twice can disagree.
func (f *File) placeSections(address func(name string) (uint64, bool)) error {
	votes := map[uint16]map[uint64]int{}
	err := f.symbols(func(name string, s symbol) {
		at, ok := uint64(0), s.kind == elf.STT_FUNC && s.section < uint16(elf.SHN_LORESERVE) && s.section != 0
		if ok {
			at, ok = address(name)
		}
		if !ok {
			return
		}
		if votes[s.section] == nil {
			votes[s.section] = map[uint64]int{}
		}
		votes[s.section][at-s.value]++
	})
	if err != nil {
		return err
	}
	f.place.sections = map[uint16]uint64{}
	for section, bases := range votes {
		all := 0
		for base, n := range bases {
			if all += n; n > bases[f.place.sections[section]] {
				f.place.sections[section] = base
			}
		}
		if 2*bases[f.place.sections[section]] <= all {
			delete(f.place.sections, section)
		}
	}
	if len(f.place.sections) == 0 {
		return ErrNoPlace
	}
	return nil
}

// symbol is what counts of a struct Elf64_Sym.
type symbol struct {
	kind    elf.SymType
	section uint16 // index of its section
	value   uint64 // address; in a module, the offset in the section
}

// symbolLen is the size of an Elf64_Sym: u32 st_name; u8 st_info, st_other; u16 st_shndx; u64 st_value, st_size.
const symbolLen = 24

// symbols calls do for each symbol with a name. It does not make the list of elf.File.Symbols, which takes 30 MiB.
func (f *File) symbols(do func(name string, s symbol)) error {
	table, names, err := f.symbolTable()
	if err != nil {
		return err
	}
	b := f.data[table.Offset:][:table.FileSize]
	for ; len(b) >= symbolLen; b = b[symbolLen:] {
		at := binary.LittleEndian.Uint32(b)
		if at == 0 || uint64(at) >= uint64(len(names)) {
			continue
		}
		name := names[at:][:min(maxSymbolName, len(names)-int(at))]
		end := bytes.IndexByte(name, 0)
		if end < 0 {
			continue
		}
		do(string(name[:end]), symbol{elf.ST_TYPE(b[4]), binary.LittleEndian.Uint16(b[6:]), binary.LittleEndian.Uint64(b[8:])})
	}
	return nil
}

// maxSymbolName is KSYM_NAME_LEN (include/linux/kallsyms.h).
const maxSymbolName = 512

// symbolTable returns the table of symbols and the names of them.
func (f *File) symbolTable() (table *elf.Section, names []byte, err error) {
	table = f.elf.SectionByType(elf.SHT_SYMTAB)
	if table == nil || table.Flags&elf.SHF_COMPRESSED != 0 || int(table.Link) >= len(f.elf.Sections) {
		return nil, nil, errors.New("it has no table of symbols")
	}
	text := f.elf.Sections[table.Link]
	if text.Type != elf.SHT_STRTAB || text.Flags&elf.SHF_COMPRESSED != 0 {
		return nil, nil, fmt.Errorf("section %.40q does not have the names of symbols", text.Name)
	}
	return table, f.data[text.Offset:][:text.FileSize], nil
}

// nowhere is the distance of the addresses that sections get whose place is not known. No address of a kernel is among them.
const nowhere = 1 << 40

// placed reads a module's file as if its symbols had their addresses in memory, so that debug/elf relocates DWARF to these.
func (f *File) placed() (io.ReaderAt, error) {
	table, _, err := f.symbolTable()
	if err != nil {
		return nil, err
	}
	b := bytes.Clone(f.data[table.Offset:][:table.FileSize])
	for s := b; len(s) >= symbolLen; s = s[symbolLen:] {
		section := binary.LittleEndian.Uint16(s[6:])
		if int(section) >= len(f.elf.Sections) || f.elf.Sections[section].Flags&elf.SHF_ALLOC == 0 {
			continue // of the file's own sections, addresses are offsets
		}
		base, ok := f.place.sections[section]
		if !ok {
			base = (uint64(section) + 1) * nowhere
		}
		binary.LittleEndian.PutUint64(s[8:], binary.LittleEndian.Uint64(s[8:])+base)
	}
	return &overlay{f, b, int64(table.Offset)}, nil //nolint:gosec // it lies in the file
}

// overlay is a file with other bytes in one place.
type overlay struct {
	file  io.ReaderAt
	bytes []byte
	at    int64
}

// ReadAt implements io.ReaderAt.
func (o *overlay) ReadAt(b []byte, off int64) (int, error) {
	n, err := o.file.ReadAt(b, off)
	if from := max(off, o.at); from < min(off+int64(n), o.at+int64(len(o.bytes))) {
		copy(b[from-off:n], o.bytes[from-o.at:])
	}
	return n, err
}
