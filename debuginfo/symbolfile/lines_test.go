package symbolfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// chain writes lines as one text: "deepest inlined.h:3 < deep inlined.h:9".
func chain(lines []Line) string {
	var list []string
	for _, l := range lines {
		list = append(list, fmt.Sprintf("%s %s:%d", l.Function, l.File, l.Line))
	}
	return strings.Join(list, " < ")
}

// open opens a file of testdata.
func open(t *testing.T, path string) *File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := Open(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// addresses makes what Place asks.
func addresses(of map[string]uint64) func(string) (uint64, bool) {
	return func(name string) (uint64, bool) {
		a, ok := of[name]
		return a, ok
	}
}

// wantLines are those of testdata/inlined.c, at offsets in the code of x86_64.
var wantLines = []struct {
	section int // 0 for .text, 1 for .init.text
	offset  uint64
	want    string
}{
	{0, 0x00, "outer inlined.c:8"},
	{0, 0x0b, "deepest inlined.h:3 < deep inlined.h:9 < outer inlined.c:9"},
	{0, 0x1c, "outer inlined.c:10"},
	{0, 0x24, "_stext inlined.c:20"},
	{1, 0x00, "setup inlined.c:14"},
	{1, 0x09, "deepest inlined.h:3 < setup inlined.c:15"},
}

func TestImageLines(t *testing.T) {
	t.Parallel()
	const kaslr = 0x1e600000
	for _, name := range []string{"dwarf5", "dwarf4", "dwarf5-zlib", "noaranges"} {
		f := open(t, "testdata/gcc-12.2-"+name+".exe")
		if _, err := f.Lines(0xffffffff81000000); !errors.Is(err, ErrNoLine) && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.known = map[uint64]answer{}
		if err := f.Place(addresses(map[string]uint64{"_stext": 0xffffffff81000020 + kaslr})); err != nil {
			t.Fatal(err)
		}
		for _, tc := range wantLines {
			at := []uint64{0xffffffff81000000, 0xffffffff82000000}[tc.section] + kaslr + tc.offset
			got, err := f.Lines(at)
			if err != nil || chain(got) != tc.want {
				t.Errorf("%s: %#x: got %q, %v, want %q", name, at, chain(got), err, tc.want)
			}
		}
		for _, at := range []uint64{0, kaslr, 0xffffffff81000031 + kaslr, 0xffffffff81ffffff + kaslr, 1<<64 - 1} {
			if got, err := f.Lines(at); !errors.Is(err, ErrNoLine) {
				t.Errorf("%s: %#x: got %v, %v", name, at, got, err)
			}
		}
	}
}

// TestOtherUnit: the entries that name a function and what was inlined into it lie in other compile units, as LTO makes them.
func TestOtherUnit(t *testing.T) {
	t.Parallel()
	f := open(t, "testdata/gcc-12.2-lto.exe")
	if err := f.Place(addresses(map[string]uint64{"_stext": 0xffffffff81000020})); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[uint64]string{
		0xffffffff81000000: "outer lto1.c:6",
		0xffffffff81000006: "far lto2.c:6 < outer lto1.c:7",
		0xffffffff81000020: "_stext lto1.c:12",
	} {
		if got, err := f.Lines(at); err != nil || chain(got) != want {
			t.Errorf("%#x: got %q, %v, want %q", at, chain(got), err, want)
		}
	}
}

// TestOverlappingAbbreviations refuses units each of which has a table of its own in the same bytes.
func TestOverlappingAbbreviations(t *testing.T) {
	t.Parallel()
	abbrevs := bytes.Repeat([]byte{1, 0x11, 0, 0, 0}, 1000) // an abbreviation: code, tag, no children, no attributes
	unit := func(at byte) []byte { return []byte{13, 0, 0, 0, 4, 0, at, 0, 0, 0, 8, 1, 1, 1, 1, 1, 1} }
	apart := append(unit(0), unit(0)...)
	if err := checkUnits(apart, abbrevs); err != nil {
		t.Error(err)
	}
	if err := checkUnits(append(apart, unit(5)...), abbrevs); err == nil {
		t.Error("no error")
	}
}

// TestSectionNames refuses section names that debug/elf would inflate or copy without a limit.
func TestSectionNames(t *testing.T) {
	t.Parallel()
	const sections, longest = 1000, 1 << 20
	file := make([]byte, 64+sections*sectionHeaderLen+longest)
	copy(file, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint64(file[40:], 64)
	le.PutUint16(file[58:], sectionHeaderLen)
	le.PutUint16(file[60:], sections)
	names := len(file) - longest
	le.PutUint32(file[64+4:], uint32(elf.SHT_STRTAB))
	le.PutUint64(file[64+24:], uint64(names))
	le.PutUint64(file[64+32:], longest)
	copy(file[names:], bytes.Repeat([]byte("x"), longest-1))
	_, err := readELF(bytes.NewReader(file), int64(len(file)))
	if err == nil || !strings.Contains(err.Error(), "names of its sections") {
		t.Errorf("a thousand names of 1 MiB: %v", err)
	}
	file[names+8] = 0
	le.PutUint64(file[64+8:], uint64(elf.SHF_COMPRESSED))
	if _, err := readELF(bytes.NewReader(file), int64(len(file))); err == nil || !strings.Contains(err.Error(), "compressed") {
		t.Errorf("compressed names: %v", err)
	}
}

// TestModuleLines: both sections of a module begin at 0 in the file, and lie anywhere in memory.
func TestModuleLines(t *testing.T) {
	t.Parallel()
	const text, init = 0xffffffffc0123000, 0xffffffffc0007000
	for _, name := range []string{"dwarf5", "dwarf4", "dwarf5-zlib"} {
		f := open(t, "testdata/gcc-12.2-"+name+".o")
		if _, err := f.Lines(text); !errors.Is(err, ErrNoPlace) {
			t.Errorf("%s: without a place: %v", name, err)
		}
		f.known = map[uint64]answer{}
		if err := f.Place(addresses(map[string]uint64{"outer": text, "_stext": text + 0x20, "setup": init})); err != nil {
			t.Fatal(err)
		}
		for _, tc := range wantLines {
			at := []uint64{text, init}[tc.section] + tc.offset
			if got, err := f.Lines(at); err != nil || chain(got) != tc.want {
				t.Errorf("%s: %#x: got %q, %v, want %q", name, at, chain(got), err, tc.want)
			}
		}
		if _, err := f.Lines(0x10); !errors.Is(err, ErrNoLine) {
			t.Errorf("%s: an offset in the file is no address: %v", name, err)
		}
	}
	// The initialization is over, and its memory is gone.
	f := open(t, "testdata/gcc-12.2-dwarf5.o")
	if err := f.Place(addresses(map[string]uint64{"outer": text, "_stext": text + 0x20})); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Lines(text + 0x0b); err != nil || chain(got) != wantLines[1].want {
		t.Errorf("got %q, %v", chain(got), err)
	}
	// Symbols that do not agree are those of another build.
	f = open(t, "testdata/gcc-12.2-dwarf5.o")
	if err := f.Place(addresses(map[string]uint64{"outer": text, "_stext": text + 0x30})); !errors.Is(err, ErrNoPlace) {
		t.Errorf("got %v", err)
	}
}

func TestModuleLinesARM64(t *testing.T) {
	t.Parallel()
	const text = 0xffff800001234000
	f := open(t, "testdata/gcc-12.2-arm64.o")
	if err := f.Place(addresses(map[string]uint64{"outer": text})); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Lines(text + 0x0c); err != nil || chain(got) != "deepest inlined.h:3 < deep inlined.h:9 < outer inlined.c:9" {
		t.Errorf("got %q, %v", chain(got), err)
	}
}

func TestOtherFiles(t *testing.T) {
	t.Parallel()
	f := open(t, "testdata/gcc-12.2-dwarf5.exe")
	if err := f.Place(addresses(nil)); !errors.Is(err, ErrNoPlace) {
		t.Errorf("got %v", err)
	}
	whole, err := os.ReadFile("testdata/gcc-12.2-dwarf5.exe")
	if err != nil {
		t.Fatal(err)
	}
	want, err := ParseBuildID("abcdef0123456789abcdef0123456789abcdef01")
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(bytes.NewReader(whole), int64(len(whole)), want); err != nil {
		t.Error(err)
	}
	for n := range len(whole) {
		if err := Check(bytes.NewReader(whole[:n]), int64(n), want); err == nil {
			t.Fatalf("the first %d of %d bytes count as the file", n, len(whole))
		}
	}
	var wrong *WrongBuildIDError
	if err := Check(bytes.NewReader(whole), int64(len(whole)), BuildID("others")); !errors.As(err, &wrong) {
		t.Errorf("got %v", err)
	}
}

// TestShortened: a file that is cut off while it is mapped gives an error.
func TestShortened(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/gcc-12.2-dwarf5.exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f := open(t, path)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Lines(0xffffffff81000000); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, %v", got, err)
	}
}

// FuzzLines reads lines of damaged files. Nothing but an error may come of it.
func FuzzLines(f *testing.F) {
	seeds, err := filepath.Glob("testdata/gcc-*")
	if err != nil || len(seeds) < 8 {
		f.Fatalf("there are %d files in testdata: %v", len(seeds), err)
	}
	for _, path := range seeds {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := Open(r)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		_ = Check(file, int64(len(b)), nil)
		_ = file.Place(addresses(map[string]uint64{"outer": 0xffffffff81000000, "_stext": 0xffffffff81000020, "setup": 0xffffffff82000000}))
		for _, tc := range wantLines {
			lines, err := file.Lines([]uint64{0xffffffff81000000, 0xffffffff82000000}[tc.section] + tc.offset)
			if (err == nil) != (len(lines) > 0) {
				t.Errorf("got %v, %v", lines, err)
			}
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
