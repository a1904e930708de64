package kerneltest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/mem"
)

// WriteCore writes the machine's memory as an ELF core like /proc/vmcore, with a VMCOREINFO note.
func (m *Machine) WriteCore(w io.Writer) error {
	pfns := slices.Sorted(maps.Keys(m.pages))
	var runs []mem.Extent
	for _, pfn := range pfns {
		runs = mem.AppendExtent(runs, mem.Extent{Start: pfn, Count: 1})
	}
	note := vmcoreInfoNote(m.Text())
	front := uint64(binary.Size(elf.Header64{})) + uint64(len(runs)+1)*uint64(binary.Size(elf.Prog64{}))
	off := (front + uint64(len(note)) + PageSize - 1) &^ (PageSize - 1)
	var b bytes.Buffer
	h := elf.Header64{
		Type: uint16(elf.ET_CORE), Machine: uint16(m.Type), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56,
		Phnum: uint16(len(runs) + 1),
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	progs := []elf.Prog64{{Type: uint32(elf.PT_NOTE), Off: front, Filesz: uint64(len(note)), Memsz: uint64(len(note))}}
	for _, r := range runs {
		size := r.Count * PageSize
		progs = append(progs, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: 7, Off: off, Paddr: uint64(r.Start.Addr(12)), Filesz: size, Memsz: size})
		off += size
	}
	for _, part := range []any{h, progs, note} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return err
		}
	}
	b.Write(make([]byte, -b.Len()&(PageSize-1)))
	if _, err := w.Write(b.Bytes()); err != nil {
		return err
	}
	for _, pfn := range pfns {
		if _, err := w.Write(m.pages[pfn][:]); err != nil {
			return err
		}
	}
	return nil
}

func vmcoreInfoNote(text string) []byte {
	const name = "VMCOREINFO\x00\x00"
	var b []byte
	for _, v := range []int{11, len(text), 0} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	b = append(append(b, name...), text...)
	return append(b, make([]byte, -len(b)&3)...)
}

// Text returns the Info as the text of a VMCOREINFO note, which ParseInfo reads.
func (i *Info) Text() string {
	var lines []string
	for kind, keys := range map[string]map[string]uint64{"SIZE": i.Sizes, "OFFSET": i.Offsets, "LENGTH": i.Lengths} {
		for name, v := range keys {
			lines = append(lines, fmt.Sprintf("%s(%s)=%d\n", kind, name, v))
		}
	}
	for name, v := range i.Symbols {
		lines = append(lines, fmt.Sprintf("SYMBOL(%s)=%x\n", name, v))
	}
	for name, v := range i.Numbers {
		lines = append(lines, fmt.Sprintf("NUMBER(%s)=%d\n", name, v))
	}
	for name, v := range i.Strings {
		lines = append(lines, name+"="+v+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
