package elf64

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"testing"
)

// object is a file with a section of a text, and a symbol table in which the symbol used is not defined and the symbol own is.
func object(tb testing.TB) []byte {
	tb.Helper()
	names := []byte("\x00.text\x00.names\x00.symtab\x00used\x00own\x00")
	at := func(name string) uint32 { return uint32(bytes.Index(names, []byte(name+"\x00"))) }
	var symbols bytes.Buffer
	for _, s := range []elf.Sym64{{}, {Name: at("used")}, {Name: at("own"), Shndx: 1}} {
		encode(tb, &symbols, s)
	}
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1}, Type: uint16(elf.ET_REL),
		Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Phentsize: 56, Phnum: 1, Phoff: 64, Shentsize: 64, Shnum: 4, Shstrndx: 2,
	}
	const text = 64 + 56
	data := uint64(text + len("text"))
	h.Shoff = data + uint64(len(names)+symbols.Len())
	var b bytes.Buffer
	encode(tb, &b, h)
	encode(tb, &b, elf.Prog64{Type: uint32(elf.PT_LOAD), Off: text, Paddr: 1 << 40, Filesz: 4})
	b.WriteString("text")
	b.Write(names)
	b.Write(symbols.Bytes())
	encode(tb, &b, []elf.Section64{
		{},
		{Name: at(".text"), Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC), Off: text, Size: 4},
		{Name: at(".names"), Type: uint32(elf.SHT_STRTAB), Off: data, Size: uint64(len(names))},
		{Name: at(".symtab"), Type: uint32(elf.SHT_SYMTAB), Off: data + uint64(len(names)), Size: uint64(symbols.Len()), Link: 2, Entsize: elf.Sym64Size},
	})
	return b.Bytes()
}

func encode(tb testing.TB, b *bytes.Buffer, v any) {
	tb.Helper()
	if err := binary.Write(b, binary.LittleEndian, v); err != nil {
		tb.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	f, err := Read(bytes.NewReader(object(t)))
	if err != nil {
		t.Fatal(err)
	}
	if f.Machine != elf.EM_X86_64 || len(f.Progs) != 1 || f.Progs[0].Paddr != 1<<40 || len(f.Sections) != 4 {
		t.Errorf("got %+v", f)
	}
	data, err := f.Data(f.Section(".text"))
	if err != nil || string(data) != "text" || f.Section(".none") != nil {
		t.Errorf("section .text has %q, %v", data, err)
	}
	if got, err := f.Imports(); err != nil || !slices.Equal(got, []string{"used"}) {
		t.Errorf("imports %q, %v", got, err)
	}
}

// TestAsDebugELF compares what this package and debug/elf read of a real program.
func TestAsDebugELF(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(bytes.NewReader(data))
	if err != nil || got.Machine != want.Machine || len(got.Progs) != len(want.Progs) || len(got.Sections) != len(want.Sections) {
		t.Fatalf("got %v; %+v, want %+v", err, got, want)
	}
	for i, p := range want.Progs {
		if q := got.Progs[i]; elf.ProgType(q.Type) != p.Type || q.Off != p.Off || q.Paddr != p.Paddr || q.Filesz != p.Filesz {
			t.Errorf("program header %d: got %+v, want %+v", i, q, p)
		}
	}
	for i, s := range want.Sections {
		q := &got.Sections[i]
		if q.Name != s.Name || q.Size != s.FileSize || elf.SectionFlag(q.Flags) != s.Flags {
			t.Errorf("section %d: got %+v, want %+v", i, q, s)
		}
		if s.Flags&elf.SHF_COMPRESSED != 0 || s.Type == elf.SHT_NOBITS {
			continue
		}
		a, err := got.Data(q)
		b, berr := s.Data()
		if err != nil || berr != nil || !bytes.Equal(a, b) {
			t.Errorf("section %s: %v, %v: the data differ", s.Name, err, berr)
		}
	}
}

// TestDamaged: every cut and every changed byte of a file gives an error or a file whose sections can be asked for.
func TestDamaged(t *testing.T) {
	whole := object(t)
	for n := range whole {
		if f, err := Read(bytes.NewReader(whole[:n])); err == nil || f != nil {
			t.Errorf("of %d bytes: got %v, %v", n, f, err)
		}
		changed := bytes.Clone(whole)
		changed[n] ^= 0xff
		ask(changed)
	}
	for name, change := range map[string]func([]byte){
		"32 bits": func(b []byte) { b[4] = 1 }, "big-endian": func(b []byte) { b[5] = 2 }, "text": func(b []byte) { copy(b, "#!/bin/sh") },
	} {
		b := bytes.Clone(whole)
		change(b)
		if _, err := Read(bytes.NewReader(b)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func ask(data []byte) {
	f, err := Read(bytes.NewReader(data))
	if err != nil {
		return
	}
	for i := range f.Sections {
		_, _ = f.Data(&f.Sections[i]) // it must return
	}
	_, _ = f.Imports()
}

func FuzzRead(f *testing.F) {
	f.Add(object(f))
	f.Fuzz(func(_ *testing.T, data []byte) { ask(data) })
}
