package symbolfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// BuildID is a GNU build id, as bytes. ld(1) makes it of a file's contents (--build-id); all files made of one build share it.
type BuildID []byte

// String returns the id in hexadecimal.
func (id BuildID) String() string { return hex.EncodeToString(id) }

// Limits of build ids. SHA-1 has 20 bytes, which nearly all have; --build-id=0xHEX may have others.
const (
	minBuildID = 4
	maxBuildID = 64
)

// ParseBuildID reads an id in hexadecimal.
func ParseBuildID(text string) (BuildID, error) {
	id, err := hex.DecodeString(text)
	if err != nil || len(id) < minBuildID || len(id) > maxBuildID {
		return nil, fmt.Errorf("%.140q is no build id: want %d to %d hexadecimal digits", text, 2*minBuildID, 2*maxBuildID)
	}
	return id, nil
}

// Errors of files.
var (
	ErrNoBuildID = errors.New("it has no build id")
	ErrNoDWARF   = errors.New("it has no debugging information (no .debug_info)")
	ErrCut       = errors.New("it ends early")
)

// Limits of the headers of an ELF file. A module with a section for each function has some thousands.
const (
	maxSections = 65279   // SHN_LORESERVE - 1; above that the number lies elsewhere
	maxNotes    = 1 << 20 // bytes of a section of notes
	maxNames    = 8 << 20 // bytes of the names of all sections
)

// readELF reads the headers of a 64-bit little-endian ELF file that may be hostile: it takes up to 20 MiB of memory. The error matches
// ErrCut if a section lies behind the end.
func readELF(r io.ReaderAt, size int64) (f *elf.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("no valid ELF file: %v", p)
		}
	}()
	var h [64]byte // Elf64_Ehdr: e_shoff at 40, e_shentsize, e_shnum and e_shstrndx as u16 from 58 on
	if _, err := r.ReadAt(h[:], 0); err != nil {
		return nil, fmt.Errorf("no ELF file: %w", ErrCut)
	}
	if !bytes.Equal(h[:6], []byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)}) {
		return nil, notELF(h[:])
	}
	at, n := binary.LittleEndian.Uint64(h[40:]), binary.LittleEndian.Uint16(h[60:])
	if n == 0 || n > maxSections {
		return nil, fmt.Errorf("the ELF header counts %d sections: want 1 to %d", n, maxSections)
	}
	if size := binary.LittleEndian.Uint16(h[58:]); size != sectionHeaderLen {
		return nil, fmt.Errorf("its section headers have %d bytes each, not %d", size, sectionHeaderLen)
	}
	if end := uint64(size); at > end || uint64(n)*sectionHeaderLen > end-at { //nolint:gosec // the length of a file
		return nil, fmt.Errorf("the section headers end at %d of %d bytes: %w", at+uint64(n)*sectionHeaderLen, size, ErrCut)
	}
	if err := checkSectionNames(r, size, int64(at), int(n), int(binary.LittleEndian.Uint16(h[62:]))); err != nil { //nolint:gosec // below size
		return nil, err
	}
	if f, err = elf.NewFile(r); err != nil {
		return nil, err
	}
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOBITS && (s.Offset > uint64(size) || s.FileSize > uint64(size)-s.Offset) { //nolint:gosec // the length of a file
			return nil, fmt.Errorf("section %.40q ends behind the file's %d bytes: %w", s.Name, size, ErrCut)
		}
	}
	return f, nil
}

// packers are programs whose files people take for vmlinux, by how these begin (RFC 1952; RFC 8878; the format of .xz, 2.1.1.1; bzip2's compress.c).
var packers = []struct{ magic, unpack string }{
	{"\x1f\x8b", "gzip -d"}, {"\x28\xb5\x2f\xfd", "zstd -d"}, {"\xfd7zXZ\x00", "xz -d"}, {"BZh", "bzip2 -d"},
}

// notELF says what the beginning of a file that is no ELF file of 64 bits looks like.
func notELF(head []byte) error {
	for _, p := range packers {
		if bytes.HasPrefix(head, []byte(p.magic)) {
			return fmt.Errorf("no ELF file but a compressed one: unpack it with '%s'", p.unpack)
		}
	}
	return errors.New("no 64-bit little-endian ELF file")
}

// sectionHeaderLen is the size of an Elf64_Shdr: u32 sh_name, sh_type; u64 sh_flags, sh_addr, sh_offset, sh_size; and more.
const sectionHeaderLen = 64

// checkSectionNames looks at the n section headers at an offset, the one at index of which has their names. debug/elf inflates these, and makes a
// copy of each name.
func checkSectionNames(r io.ReaderAt, size, at int64, n, index int) error {
	headers := make([]byte, n*sectionHeaderLen)
	if _, err := r.ReadAt(headers, at); err != nil {
		return fmt.Errorf("its section headers: %w", err)
	}
	if index >= n {
		return fmt.Errorf("section %d of %d has the names of sections", index, n)
	}
	h := headers[index*sectionHeaderLen:]
	flags, offset, length := binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint64(h[24:]), binary.LittleEndian.Uint64(h[32:])
	switch end := uint64(size); { //nolint:gosec // the length of a file
	case flags&uint64(elf.SHF_COMPRESSED) != 0 || length > maxNames:
		return fmt.Errorf("the names of its sections are compressed or have more than %d bytes", maxNames)
	case offset > end || length > end-offset:
		return fmt.Errorf("the names of its sections end behind the file's %d bytes: %w", size, ErrCut)
	}
	names := make([]byte, length)
	if _, err := r.ReadAt(names, int64(offset)); err != nil && length > 0 { //nolint:gosec // below size
		return fmt.Errorf("the names of its sections: %w", err)
	}
	total := 0
	for ; len(headers) > 0; headers = headers[sectionHeaderLen:] {
		name := names[min(uint64(binary.LittleEndian.Uint32(headers)), length):]
		if total += max(bytes.IndexByte(name, 0), 0); total > maxNames {
			return fmt.Errorf("the names of its sections have more than %d bytes", maxNames)
		}
	}
	return nil
}

// ntGNUBuildID is NT_GNU_BUILD_ID (include/uapi/linux/elf.h does not have it; elf.h of glibc does).
const ntGNUBuildID = 3

// buildIDOf returns the build id of a file: vmlinux has it among .notes, modules in .note.gnu.build-id.
func buildIDOf(f *elf.File) (BuildID, error) {
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOTE || s.Flags&elf.SHF_COMPRESSED != 0 || s.FileSize > maxNotes {
			continue
		}
		b := make([]byte, s.FileSize)
		if _, err := s.ReadAt(b, 0); err != nil {
			return nil, fmt.Errorf("section %.40q: %w", s.Name, err)
		}
		if id := buildIDNote(b); id != nil {
			return id, nil
		}
	}
	return nil, ErrNoBuildID
}

// buildIDNote finds the build id among notes. A note is, in 32-bit words: the lengths of name and description, the type, and both
// padded to a multiple of 4 bytes.
func buildIDNote(b []byte) BuildID {
	for len(b) >= 12 {
		name, desc, kind := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
		b = b[12:]
		paddedName, paddedDesc := (uint64(name)+3)&^3, (uint64(desc)+3)&^3
		if paddedName+uint64(desc) > uint64(len(b)) {
			return nil
		}
		text := b[paddedName:][:desc]
		if kind == ntGNUBuildID && string(b[:name]) == "GNU\x00" && desc >= minBuildID && desc <= maxBuildID {
			return bytes.Clone(text)
		}
		b = b[min(paddedName+paddedDesc, uint64(len(b))):]
	}
	return nil
}

// hasDWARF reports whether a file has debugging information. A stripped file has the same build id as one that is not.
func hasDWARF(f *elf.File) bool {
	for _, name := range []string{".debug_info", ".zdebug_info"} {
		if s := f.Section(name); s != nil && s.Type != elf.SHT_NOBITS && s.Size > 0 {
			return true
		}
	}
	return false
}

// Check returns why a file is not the debugging information with a build id, nil if it is. Any id is right if want is nil.
func Check(r io.ReaderAt, size int64, want BuildID) error {
	f, err := readELF(r, size)
	if err != nil {
		return err
	}
	got, err := buildIDOf(f)
	switch {
	case want == nil:
	case err != nil:
		return err
	case !bytes.Equal(got, want):
		return &WrongBuildIDError{Got: got, Want: want}
	}
	if !hasDWARF(f) {
		return ErrNoDWARF
	}
	return nil
}

// WrongBuildIDError says that a file is of another build.
type WrongBuildIDError struct{ Got, Want BuildID }

func (e *WrongBuildIDError) Error() string {
	return fmt.Sprintf("it has the build id %v, not %v", e.Got, e.Want)
}
