// Package elf64 reads the headers of ELF files: kernel modules, programs, /proc/kcore. It knows 64-bit little-endian files, which are all
// that this project's machines have. Package debug/elf reads them too, and links decompressors of debugging information into a program:
// 100 KB, of which a capture kernel would have no use. Its constants and structures are used here.
//
// Files may be hostile: what they say of sizes is checked before memory is allocated for it. Functions are safe for concurrent use.
package elf64

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// A File has the headers of an ELF file.
type File struct {
	Machine  elf.Machine
	Progs    []elf.Prog64
	Sections []Section
	r        io.ReaderAt
}

// A Section is a section header with its name.
type Section struct {
	elf.Section64
	Name string
}

// ErrFormat means that a file is no ELF file, or is none of this kind.
var ErrFormat = errors.New("not a 64-bit little-endian ELF file")

// maxData bounds what is read of a section, in bytes. Symbols of the largest modules have some MiB.
const maxData = 256 << 20

// Read reads the headers of a file.
func Read(r io.ReaderAt) (*File, error) {
	var h elf.Header64
	if err := readAt(r, 0, &h); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrFormat, err)
	}
	if string(h.Ident[:elf.EI_CLASS]) != elf.ELFMAG || h.Ident[elf.EI_CLASS] != byte(elf.ELFCLASS64) || h.Ident[elf.EI_DATA] != byte(elf.ELFDATA2LSB) {
		return nil, ErrFormat
	}
	f := &File{Machine: elf.Machine(h.Machine), r: r, Progs: make([]elf.Prog64, h.Phnum)}
	if int(h.Phentsize) != binary.Size(elf.Prog64{}) && h.Phnum > 0 || int(h.Shentsize) != binary.Size(elf.Section64{}) && h.Shnum > 0 {
		return nil, fmt.Errorf("%w: headers of %d and %d bytes", ErrFormat, h.Phentsize, h.Shentsize)
	}
	if err := readAt(r, h.Phoff, f.Progs); err != nil {
		return nil, fmt.Errorf("program headers at %#x: %w", h.Phoff, err)
	}
	if err := f.readSections(&h); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *File) readSections(h *elf.Header64) error {
	raw := make([]elf.Section64, h.Shnum)
	if err := readAt(f.r, h.Shoff, raw); err != nil {
		return fmt.Errorf("section headers at %#x: %w", h.Shoff, err)
	}
	for _, s := range raw {
		f.Sections = append(f.Sections, Section{Section64: s})
	}
	if h.Shnum == 0 {
		return nil
	}
	if h.Shstrndx >= h.Shnum {
		return fmt.Errorf("%w: section %d of %d has the names", ErrFormat, h.Shstrndx, h.Shnum)
	}
	names, err := f.Data(&f.Sections[h.Shstrndx])
	if err != nil {
		return err
	}
	for i := range f.Sections {
		f.Sections[i].Name = text(names, f.Sections[i].Section64.Name)
	}
	return nil
}

// Section returns the first section of a name, nil if there is none.
func (f *File) Section(name string) *Section {
	for i := range f.Sections {
		if f.Sections[i].Name == name {
			return &f.Sections[i]
		}
	}
	return nil
}

// Data returns the bytes of a section as the file has them.
func (f *File) Data(s *Section) ([]byte, error) {
	if elf.SectionType(s.Type) == elf.SHT_NOBITS {
		return nil, nil
	}
	if s.Size > maxData || s.Off > math.MaxInt64-maxData {
		return nil, fmt.Errorf("section %q at %#x: %d bytes are too many", s.Name, s.Off, s.Size)
	}
	var b bytes.Buffer // it grows with what is there, not with what the header says
	n, err := b.ReadFrom(io.NewSectionReader(f.r, int64(s.Off), int64(s.Size)))
	if err == nil && n != int64(s.Size) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("section %q at %#x: %w", s.Name, s.Off, err)
	}
	return b.Bytes(), nil
}

// Imports lists the names of symbols that the file uses and does not define, of its first symbol table.
func (f *File) Imports() ([]string, error) {
	for i := range f.Sections {
		s := &f.Sections[i]
		if elf.SectionType(s.Type) != elf.SHT_SYMTAB {
			continue
		}
		if int64(s.Link) >= int64(len(f.Sections)) {
			return nil, fmt.Errorf("%w: section %d has the names of symbols, of %d", ErrFormat, s.Link, len(f.Sections))
		}
		data, err := f.Data(s)
		if err != nil {
			return nil, err
		}
		names, err := f.Data(&f.Sections[s.Link])
		if err != nil {
			return nil, err
		}
		return imports(data, names), nil
	}
	return nil, nil
}

func imports(data, names []byte) []string {
	var list []string
	for ; len(data) >= elf.Sym64Size; data = data[elf.Sym64Size:] {
		// Elf64_Sym: u32 name, u8 info, u8 other, u16 section, u64 value, u64 size
		if elf.SectionIndex(binary.LittleEndian.Uint16(data[6:])) == elf.SHN_UNDEF {
			if name := text(names, binary.LittleEndian.Uint32(data)); name != "" {
				list = append(list, name)
			}
		}
	}
	return list
}

// text returns the text at an offset of a table of texts that end with a zero byte.
func text(table []byte, at uint32) string {
	if int64(at) >= int64(len(table)) {
		return ""
	}
	s, _, _ := bytes.Cut(table[at:], []byte{0})
	return string(s)
}

// readAt decodes a value of fixed size.
func readAt(r io.ReaderAt, at uint64, v any) error {
	if at > math.MaxInt64 {
		return io.ErrUnexpectedEOF
	}
	return binary.Read(io.NewSectionReader(r, int64(at), math.MaxInt64-int64(at)), binary.LittleEndian, v)
}
