package elfcore_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

const page = 4096

func open(tb testing.TB, b []byte) *elfcore.File {
	tb.Helper()
	f, err := elfcore.New(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func openTolerant(tb testing.TB, b []byte) *elfcore.File {
	tb.Helper()
	f, err := elfcore.NewTolerant(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func extents(tb testing.TB, img vmcore.Image) []mem.Extent {
	tb.Helper()
	var all []mem.Extent
	for e, err := range img.Pages() {
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// kexecCore is laid out as kexec -c does it: the kernel image first, then RAM, the
// low memory ending within a page.
func kexecCore(o vmcoretest.Order) (*vmcoretest.Core, []byte) {
	ram := vmcoretest.Pages(1, 16, page)
	low := vmcoretest.Pages(2, 4, page)[:3*page+0xc00]
	c := &vmcoretest.Core{
		Order: o,
		Notes: append(vmcoretest.Prstatus(o, 42, nil), vmcoretest.VMCOREINFO(o, "OSRELEASE=6.1.0\nPAGESIZE=4096\n")...),
		Loads: []vmcoretest.Load{
			{Vaddr: 0xffffffff81000000, Paddr: 0x104000, Data: ram[4*page : 8*page]},
			{Vaddr: 0xffff888000001000, Paddr: 0x1000, Data: low},
			{Vaddr: 0xffff888000100000, Paddr: 0x100000, Data: ram},
		},
	}
	return c, ram
}

func TestKexecCore(t *testing.T) {
	for name, o := range map[string]vmcoretest.Order{"little": le, "big": be} {
		for _, many := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				c, ram := kexecCore(o)
				c.ManyPhdrs = many
				f := open(t, c.Bytes())
				i := f.Info()
				if i.Format != vmcore.FormatELF || i.Machine != elf.EM_X86_64 || i.PageSize != page || i.MaxPFN != 0x110 || i.ByteOrder != binary.ByteOrder(o) {
					t.Errorf("info: %+v", i)
				}
				if len(i.Segments) != 3 || i.Segments[0].Vaddr != 0xffffffff81000000 || len(i.CPUs) != 1 || i.CPUs[0].PID != 42 || len(i.Warnings) != 0 {
					t.Errorf("segments %v, CPUs %v, warnings %q", i.Segments, i.CPUs, i.Warnings)
				}
				if want := []mem.Range{{Start: 0x1000, End: 0x4c00}, {Start: 0x100000, End: 0x110000}}; !slices.Equal(f.RAM(), want) {
					t.Errorf("RAM %v, want %v", f.RAM(), want)
				}
				// Of frame 4 the file has the first 0xc00 bytes.
				if want := []mem.Extent{{Start: 1, Count: 4}, {Start: 0x100, Count: 16}}; !slices.Equal(extents(t, f), want) {
					t.Errorf("pages %v, want %v", extents(t, f), want)
				}
				got := make([]byte, len(ram))
				if err := f.ReadPages(got, 0x100); err != nil || !bytes.Equal(got, ram) {
					t.Errorf("RAM reads otherwise: %v", err)
				}
			})
		}
	}
}

func TestPartialPages(t *testing.T) {
	data := bytes.Repeat([]byte{1}, 3*page)
	c := &vmcoretest.Core{Loads: []vmcoretest.Load{
		{Paddr: 0x1800, Data: data[:0x1c00]}, // 0x1800 to 0x3400
		{Paddr: 0x3800, Data: data[:0x100]},  // the same frame 3
		{Paddr: 0x9000, Data: data[:page]},
	}}
	f := open(t, c.Bytes())
	there := func(a int) bool {
		return a >= 0x1800 && a < 0x3400 || a >= 0x3800 && a < 0x3900 || a >= 0x9000 && a < 0xa000
	}
	p := make([]byte, page)
	for pfn := range 12 {
		err := f.ReadPage(p, mem.PFN(pfn))
		if touched := pfn >= 1 && pfn <= 3 || pfn == 9; !touched {
			if !errors.Is(err, vmcore.ErrNotPresent) {
				t.Errorf("pfn %d: %v", pfn, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("pfn %d: %v", pfn, err)
		}
		for i, b := range p {
			if (b == 1) != there(pfn*page+i) {
				t.Fatalf("pfn %d, byte %#x: %d", pfn, i, b)
			}
		}
	}
	if want := []mem.Extent{{Start: 1, Count: 3}, {Start: 9, Count: 1}}; !slices.Equal(extents(t, f), want) {
		t.Errorf("pages %v, want %v", extents(t, f), want)
	}
	var addr *vmcore.AddrError
	if err := f.ReadPhys(make([]byte, 2*page), 0x3000); !errors.Is(err, vmcore.ErrNotPresent) || !errors.As(err, &addr) || addr.Addr != 0x4000 {
		t.Errorf("into a hole: %v", err)
	}
	for _, a := range []mem.PhysAddr{1 << 52, ^mem.PhysAddr(0)} {
		if err := f.ReadPhys(p, a); !errors.Is(err, vmcore.ErrNotPresent) {
			t.Errorf("paddr %v: %v", a, err)
		}
	}
}

func TestExcludedPages(t *testing.T) {
	data := bytes.Repeat([]byte{1}, 2*page)
	c := &vmcoretest.Core{Loads: []vmcoretest.Load{
		{Paddr: 0x1000, Data: data, Memsz: 4 * page},
		{Paddr: 0x5000, Data: nil, Memsz: page, Offset: page},
		{Paddr: 0x6000, Data: data[:page]},
	}}
	f := open(t, c.Bytes())
	p := make([]byte, page)
	for pfn, want := range map[mem.PFN]error{0: vmcore.ErrNotPresent, 1: nil, 2: nil, 3: vmcore.ErrExcluded, 4: vmcore.ErrExcluded, 5: vmcore.ErrExcluded, 6: nil, 7: vmcore.ErrNotPresent} {
		if err := f.ReadPage(p, pfn); !errors.Is(err, want) {
			t.Errorf("pfn %d: got %v, want %v", pfn, err, want)
		}
	}
	if f.Info().MaxPFN != 7 {
		t.Errorf("max_mapnr %d", f.Info().MaxPFN)
	}
}

func TestPageSizes(t *testing.T) {
	for _, tc := range []struct {
		info    string
		machine elf.Machine
		want    int
		warn    bool
	}{
		{"PAGESIZE=4096\n", elf.EM_AARCH64, 4096, false},
		{"PAGESIZE=16384\n", elf.EM_AARCH64, 16384, false},
		{"PAGESIZE=65536\n", elf.EM_AARCH64, 65536, false},
		{"PAGESIZE=8192\n", elf.EM_AARCH64, 4096, true},
		{"PAGESIZE=junk\n", elf.EM_X86_64, 4096, true},
		{"A=1\n", elf.EM_X86_64, 4096, false},
		{"A=1\n", elf.EM_PPC64, 65536, true},
		{"A=1\n", elf.EM_AARCH64, 4096, true},
	} {
		c := &vmcoretest.Core{
			Machine: uint16(tc.machine), Notes: vmcoretest.VMCOREINFO(le, tc.info),
			Loads: []vmcoretest.Load{{Paddr: 0x40000000, Data: make([]byte, 2*65536)}},
		}
		f := open(t, c.Bytes())
		if got := f.Info().PageSize; got != tc.want || (len(f.Info().Warnings) > 0) != tc.warn {
			t.Errorf("%q on %v: got %d, %q", tc.info, tc.machine, got, f.Info().Warnings)
		}
		if err := f.ReadPage(make([]byte, tc.want), mem.PFN(0x40000000/tc.want)); err != nil {
			t.Errorf("%q: %v", tc.info, err)
		}
	}
}

// TestContradictions gives cores that are refused, and what is made of them where
// nothing better can be had.
func TestContradictions(t *testing.T) {
	ones := bytes.Repeat([]byte{1}, 4*page)
	for _, tc := range []struct {
		name  string
		loads []vmcoretest.Load
		want  error
		names []string // in the message
		ram   []mem.Range
	}{
		{
			"partial overlap in memory",
			[]vmcoretest.Load{{Paddr: 0x1000, Data: ones[:2*page]}, {Paddr: 0x2000, Data: ones[:2*page]}},
			vmcore.ErrCorrupt,
			[]string{"0x1000", "0x2000", "0x3000"},
			[]mem.Range{{Start: 0x1000, End: 0x3000}, {Start: 0x3000, End: 0x4000}},
		},
		{
			"overlap in the file",
			[]vmcoretest.Load{{Paddr: 0x1000, Data: ones[:2*page], Offset: page}, {Paddr: 0x8000, Data: ones[:2*page], Offset: 2 * page}},
			vmcore.ErrCorrupt,
			[]string{"0x1000", "0x8000", "0x2000"},
			[]mem.Range{{Start: 0x1000, End: 0x3000}, {Start: 0x8000, End: 0xa000}},
		},
		{
			"beyond physical memory",
			[]vmcoretest.Load{{Paddr: 0x1000, Data: ones[:page]}, {Paddr: 1 << 60, Data: ones[:page]}},
			vmcore.ErrCorrupt,
			[]string{"0x1000000000000000"},
			[]mem.Range{{Start: 0x1000, End: 0x2000}},
		},
		{
			"wraps around",
			[]vmcoretest.Load{{Paddr: 0x1000, Data: ones[:page]}, {Paddr: 0x8000, Data: ones[:page], Memsz: 1<<64 - 1}},
			vmcore.ErrCorrupt,
			[]string{"0x8000"},
			[]mem.Range{{Start: 0x1000, End: 0x2000}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := (&vmcoretest.Core{Loads: tc.loads}).Bytes()
			f, err := elfcore.New(bytes.NewReader(b), int64(len(b)))
			var format *vmcore.FormatError
			if !errors.Is(err, tc.want) || !errors.As(err, &format) || f != nil {
				t.Fatalf("got %v, %v, want %v", f, err, tc.want)
			}
			for _, name := range tc.names {
				if !strings.Contains(err.Error(), name) {
					t.Errorf("%q does not name %s", err, name)
				}
			}
			tol := openTolerant(t, b)
			if len(tol.Info().Warnings) != 1 {
				t.Errorf("warnings: %q", tol.Info().Warnings)
			}
			if !slices.Equal(tol.RAM(), tc.ram) {
				t.Errorf("RAM %v, want %v", tol.RAM(), tc.ram)
			}
			p := make([]byte, page)
			if err := tol.ReadPage(p, 1); err != nil || !bytes.Equal(p, ones[:page]) {
				t.Errorf("the good segment: %v", err)
			}
		})
	}
}

// TestAliases has segments that repeat memory of others: none is refused.
func TestAliases(t *testing.T) {
	ram := vmcoretest.Pages(1, 16, page)
	load := func(from, to int) vmcoretest.Load {
		return vmcoretest.Load{Paddr: uint64(from * page), Data: ram[from*page : to*page]}
	}
	for _, tc := range []struct {
		name  string
		loads []vmcoretest.Load
	}{
		{"contained", []vmcoretest.Load{load(4, 8), load(0, 16)}},
		{"at the start", []vmcoretest.Load{load(0, 8), load(0, 16)}},
		{"at the end", []vmcoretest.Load{load(8, 16), load(0, 16)}},
		{"the same", []vmcoretest.Load{load(0, 16), load(0, 16)}},
		{"across two", []vmcoretest.Load{load(4, 12), load(0, 8), load(8, 16)}},
		{"from the start of one into another", []vmcoretest.Load{load(8, 12), load(0, 8), load(8, 10), load(10, 16)}},
		{"the first of all", []vmcoretest.Load{load(0, 12), load(0, 8), load(8, 16)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := open(t, (&vmcoretest.Core{Loads: tc.loads}).Bytes())
			got := make([]byte, len(ram))
			if err := f.ReadPhys(got, 0); err != nil || !bytes.Equal(got, ram) {
				t.Errorf("reads otherwise: %v", err)
			}
			var n uint64
			for _, r := range f.RAM() {
				n += r.Len()
			}
			if n != uint64(len(ram)) {
				t.Errorf("RAM %v", f.RAM())
			}
		})
	}
}

func TestManyOverlapsEnd(t *testing.T) {
	c := &vmcoretest.Core{}
	for i := range uint64(20000) {
		c.Loads = append(c.Loads, vmcoretest.Load{Paddr: i * 0x1000, Memsz: 0x1800, Filesz: 0x1800, Offset: page + i*0x2000})
	}
	c.Loads = append(c.Loads, vmcoretest.Load{Paddr: 1 << 40, Data: make([]byte, page)})
	b := c.Bytes()
	if _, err := elfcore.New(bytes.NewReader(b), int64(len(b))); !errors.Is(err, vmcore.ErrCorrupt) {
		t.Errorf("strict: %v", err)
	}
	if n := len(openTolerant(t, b).Info().Warnings); n == 0 || n > 100 {
		t.Errorf("tolerant: %d warnings", n)
	}
}

func TestKcore(t *testing.T) {
	c := &vmcoretest.Core{Loads: []vmcoretest.Load{
		{Vaddr: 0xffffc90000000000, Paddr: 1<<64 - 1, Data: make([]byte, page), Memsz: 1 << 45, Filesz: page},
		{Vaddr: 0xffff888000001000, Paddr: 0x1000, Data: bytes.Repeat([]byte{1}, page)},
	}}
	f := open(t, c.Bytes())
	if want := []mem.Range{{Start: 0x1000, End: 0x2000}}; !slices.Equal(f.RAM(), want) || len(f.Info().Segments) != 2 {
		t.Errorf("RAM %v, segments %v", f.RAM(), f.Info().Segments)
	}
}

func TestBadHeaders(t *testing.T) {
	c, _ := kexecCore(le)
	put := func(off int, b ...byte) func([]byte) []byte {
		return func(f []byte) []byte { copy(f[off:], b); return f }
	}
	for _, tc := range []struct {
		name   string
		change func([]byte) []byte
		want   error
	}{
		{"empty", func([]byte) []byte { return nil }, vmcore.ErrUnknownFormat},
		{"three bytes", func(b []byte) []byte { return b[:3] }, vmcore.ErrUnknownFormat},
		{"short text", func([]byte) []byte { return []byte("hello") }, vmcore.ErrUnknownFormat},
		{"other magic", put(0, 'X'), vmcore.ErrUnknownFormat},
		{"cut in the ELF header", func(b []byte) []byte { return b[:40] }, vmcore.ErrTruncated},
		{"cut in the program headers", func(b []byte) []byte { return b[:100] }, vmcore.ErrTruncated},
		{"cut in the notes", func(b []byte) []byte { return b[:400] }, vmcore.ErrTruncated},
		{"32-bit", put(4, 1), vmcore.ErrUnsupported},
		{"i386 in 64-bit headers, of PAE", put(18, 3, 0), vmcore.ErrUnsupported},
		{"arm in 64-bit headers", put(18, 40, 0), vmcore.ErrUnsupported},
		{"no class", put(4, 0), vmcore.ErrCorrupt},
		{"no byte order", put(5, 3), vmcore.ErrCorrupt},
		{"an executable", put(16, 2), vmcore.ErrUnsupported},
		{"other e_phentsize", put(54, 32), vmcore.ErrCorrupt},
		{"no program headers", put(56, 0, 0), vmcore.ErrCorrupt},
		{"many program headers", put(56, 0xfe, 0xff), vmcore.ErrTruncated},
		{"PN_XNUM without sections", put(56, 0xff, 0xff), vmcore.ErrCorrupt},
		{"PN_XNUM with 4 billion", func(b []byte) []byte {
			copy(b[56:], []byte{0xff, 0xff})
			le.PutUint64(b[40:], page)
			le.PutUint32(b[page+44:], 1<<32-1)
			return b
		}, vmcore.ErrCorrupt},
		{"PN_XNUM section beyond the file", func(b []byte) []byte {
			copy(b[56:], []byte{0xff, 0xff})
			le.PutUint64(b[40:], 1<<40)
			return b
		}, vmcore.ErrTruncated},
		{"e_phoff beyond the file", put(32, 0, 0, 0, 0, 0, 0, 1), vmcore.ErrTruncated},
		{"e_phoff negative", put(32, 0, 0, 0, 0, 0, 0, 0, 0x80), vmcore.ErrCorrupt},
		{"p_offset negative", put(64+56+8, 0, 0, 0, 0, 0, 0, 0, 0x80), vmcore.ErrCorrupt},
		{"PT_NOTE beyond the file", put(64+8, 0, 0, 0, 0, 1), vmcore.ErrTruncated},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := tc.change(c.Bytes())
			f, err := elfcore.New(bytes.NewReader(b), int64(len(b)))
			if !errors.Is(err, tc.want) || f != nil {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// TestLargeNotes keeps the small notes of a core with a device dump.
func TestLargeNotes(t *testing.T) {
	c, _ := kexecCore(le)
	device := vmcoretest.Note(le, "LINUX", 0x700, make([]byte, 17<<20))
	c.Notes = append(device, c.Notes...)
	f := open(t, c.Bytes())
	i := f.Info()
	if len(i.Notes) > 1<<16 || len(i.CPUs) != 1 || len(i.VMCOREINFO.Raw()) == 0 {
		t.Errorf("%d bytes of notes, %d CPUs", len(i.Notes), len(i.CPUs))
	}
	if len(i.Warnings) != 1 || !strings.Contains(i.Warnings[0], "too large") {
		t.Errorf("warnings: %q", i.Warnings)
	}
}

func TestRealHeaders(t *testing.T) {
	for name, machine := range map[string]elf.Machine{
		"vmcore-5.10-x86_64-kexec-c.cut": elf.EM_X86_64,
		"vmcore-6.1-x86_64-kexec-c.cut":  elf.EM_X86_64,
		"vmcore-6.12-x86_64-kexec-s.cut": elf.EM_X86_64,
		"vmcore-6.1-arm64-kexec-c.cut":   elf.EM_AARCH64,
	} {
		t.Run(name, func(t *testing.T) {
			b := vmcoretest.Sample(t, name)
			cut, err := elfcore.New(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			if a, err := vmcore.AccountOf(t.Context(), cut); err != nil || a.Complete() || a.Held > 16 || a.Planned < 150000 {
				t.Errorf("account of the cut file: %+v, %v", a, err)
			}
			f, err := elfcore.New(padded{b}, 2<<30)
			if err != nil {
				t.Fatal(err)
			}
			i := f.Info()
			if i.Machine != machine || len(i.CPUs) != 2 || len(i.Warnings) != 0 || len(i.VMCOREINFO.Raw()) == 0 {
				t.Errorf("%v, %d CPUs, warnings %q", i.Machine, len(i.CPUs), i.Warnings)
			}
			if a, err := vmcore.AccountOf(t.Context(), f); err != nil || !a.Complete() {
				t.Errorf("account of the whole file: %+v, %v", a, err)
			}
			if n := len(f.RAM()); n != len(i.Segments)-1 {
				t.Errorf("RAM %v of segments %v", f.RAM(), i.Segments)
			}
		})
	}
}

// padded reads zeros after the end of b.
type padded struct{ b []byte }

func (p padded) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(p.b)) {
		copy(b, p.b[off:])
	}
	return len(b), nil
}
