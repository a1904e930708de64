package kernel_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
)

func open(t *testing.T, m *kerneltest.Machine) *kernel.Kernel {
	t.Helper()
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// machines are the paging modes that are read.
var machines = map[string]func() *kerneltest.Machine{
	"x86_64 4 levels": func() *kerneltest.Machine { return kerneltest.NewX86(4) },
	"x86_64 5 levels": func() *kerneltest.Machine { return kerneltest.NewX86(5) },
	"x86_64 sme": func() *kerneltest.Machine {
		m := kerneltest.NewX86(4)
		encrypt(m)
		return m
	},
	"arm64 39 bits":             func() *kerneltest.Machine { return kerneltest.NewARM64(39) },
	"arm64 48 bits":             func() *kerneltest.Machine { return kerneltest.NewARM64(48) },
	"arm64 52 bits":             func() *kerneltest.Machine { return kerneltest.NewARM64(52) },
	"arm64 16 KiB 36 bits":      func() *kerneltest.Machine { return kerneltest.NewARM64Pages(14, 36, 36) },
	"arm64 16 KiB 47 bits":      func() *kerneltest.Machine { return kerneltest.NewARM64Pages(14, 47, 47) },
	"arm64 16 KiB 48 bits":      func() *kerneltest.Machine { return kerneltest.NewARM64Pages(14, 48, 48) },
	"arm64 16 KiB 52 bits":      func() *kerneltest.Machine { return kerneltest.NewARM64Pages(14, 52, 52) },
	"arm64 16 KiB 47 of 52":     func() *kerneltest.Machine { return kerneltest.NewARM64Pages(14, 52, 47) },
	"arm64 64 KiB 42 bits":      func() *kerneltest.Machine { return kerneltest.NewARM64Pages(16, 42, 42) },
	"arm64 64 KiB 48 bits":      func() *kerneltest.Machine { return kerneltest.NewARM64Pages(16, 48, 48) },
	"arm64 64 KiB 52 bits":      func() *kerneltest.Machine { return kerneltest.NewARM64Pages(16, 52, 52) },
	"arm64 64 KiB 48 of 52":     func() *kerneltest.Machine { return kerneltest.NewARM64Pages(16, 52, 48) },
	"arm64 64 KiB 52 for users": usersHave52,
}

// usersHave52 is a machine with pages of 64 KiB whose kernel is built for 48 bits with 52 for user space
// (5.0 to 5.3), of which only the root table tells.
func usersHave52() *kerneltest.Machine {
	m := kerneltest.NewARM64Pages(16, 52, 48)
	m.Numbers["VA_BITS"] = 48
	delete(m.Numbers, "TCR_EL1_T1SZ")
	return m
}

// encrypt sets the encryption bit in the entries of a machine without any but the
// image's, and in all later ones.
func encrypt(m *kerneltest.Machine) {
	const bit = 1 << 47
	m.Numbers["sme_mask"] = bit
	m.EntryBits = bit
	m.Map(kerneltest.X86Text, 0x1000000, 4<<20, 21)
}

func TestTranslate(t *testing.T) {
	for name, build := range machines {
		t.Run(name, func(t *testing.T) {
			m := build()
			base := mem.VirtAddr(0xfffffff300000000) // in the kernel's half of all of them
			page, block := uint64(m.PageSize()), uint64(1)<<m.LevelShift(1)
			m.Map(base, 0x40000000, 2*page, m.LevelShift(0))
			m.Map(base+1<<30, 0x60000000, 2*block, m.LevelShift(1))
			k := open(t, m)
			if w := k.Warnings(); len(w) != 0 || !k.Verified() || 1<<k.PageShift() != page {
				t.Errorf("verified: %v, pages of %d bytes, warnings: %q", k.Verified(), 1<<k.PageShift(), w)
			}
			inImage := page - 0x1000 // a whole block where that is small enough to map the image
			if page == kerneltest.PageSize {
				inImage = block - 0x1000
			}
			for _, tc := range []struct {
				name string
				va   mem.VirtAddr
				want kernel.Mapping
			}{
				{"page", base, kernel.Mapping{Phys: 0x40000000, Size: page}},
				{"inside a page", base + mem.VirtAddr(page) + 0xabc, kernel.Mapping{Phys: 0x40000abc + mem.PhysAddr(page), Size: page - 0xabc}},
				{
					"block", base + 1<<30 + mem.VirtAddr(block) + 0x12345,
					kernel.Mapping{Phys: 0x60012345 + mem.PhysAddr(block), Size: block - 0x12345},
				},
				{"kernel image", m.Image(0x201000), kernel.Mapping{Phys: 0x1201000, Size: inImage}},
			} {
				got, err := k.Lookup(tc.va)
				if err != nil || got != tc.want {
					t.Errorf("%s: got %+v, %v, want %+v", tc.name, got, err, tc.want)
				}
			}
			if page != kerneltest.PageSize {
				return
			}
			m.Map(base+2<<30, 0x80000000, 1<<30, 30)
			want := kernel.Mapping{Phys: 0x92345678, Size: 1<<30 - 0x12345678}
			if got, err := open(t, m).Lookup(base + 2<<30 + 0x12345678); err != nil || got != want {
				t.Errorf("1 GiB: got %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

func TestTranslateUnmapped(t *testing.T) {
	for name, build := range machines {
		m := build()
		k := open(t, m)
		for _, va := range []mem.VirtAddr{0, 0x1000, 1 << 47, m.Image(1 << 30), ^mem.VirtAddr(0)} {
			_, err := k.Translate(va)
			var fault *kernel.FaultError
			if !errors.Is(err, kernel.ErrNotMapped) || !errors.As(err, &fault) || fault.Addr != va {
				t.Errorf("%s: %v: got %v, want ErrNotMapped at it", name, va, err)
			}
		}
	}
}

// The output addresses of LPA2, and of LPA with pages of 64 KiB, have bits where other kernels have
// attributes or zeros.
func TestHighOutputAddress(t *testing.T) {
	const high = mem.PhysAddr(0xd_1234_5670_0000) // bits 51, 50 and 48 set
	base := mem.VirtAddr(0xfff8000000000000)
	for _, shift := range []uint{12, 14, 16} {
		m := kerneltest.NewARM64Pages(shift, 52, 52)
		m.Map(base, high, 1<<shift, shift)
		m.Map(base+1<<40, 0xd_1234_4000_0000, 1<<m.LevelShift(1), m.LevelShift(1))
		if got, err := open(t, m).Translate(base + 5); err != nil || got != high+5 {
			t.Errorf("pages of %d: got %v, %v, want %v", 1<<shift, got, err, high+5)
		}
		if got, err := open(t, m).Translate(base + 1<<40 + 5); err != nil || got != 0xd_1234_4000_0005 {
			t.Errorf("blocks over pages of %d: got %v, %v", 1<<shift, got, err)
		}
	}
}

// A kernel built for 52 bits runs with 48 on a processor without LPA2.
func TestARM64FallsBackTo48Bits(t *testing.T) {
	m := kerneltest.NewARM64(48)
	m.Numbers["VA_BITS"] = 52
	k := open(t, m)
	if got, err := k.Translate(m.Image(0x1234)); err != nil || got != 0x1001234 {
		t.Errorf("got %v, %v", got, err)
	}
	delete(m.Numbers, "TCR_EL1_T1SZ")
	m.Numbers["VA_BITS"] = 48
	if got, err := open(t, m).Translate(m.Image(0x1234)); err != nil || got != 0x1001234 {
		t.Errorf("without TCR_EL1_T1SZ: got %v, %v", got, err)
	}
}

func TestPhysBaseFromTextSegment(t *testing.T) {
	for name, change := range map[string]func(*kerneltest.Machine){
		"no key":    func(m *kerneltest.Machine) { delete(m.Numbers, "phys_base") },
		"wrong key": func(m *kerneltest.Machine) { m.Numbers["phys_base"] = 0x7000000 },
	} {
		m := kerneltest.NewX86(4)
		want := uint64(m.Numbers["phys_base"])
		m.Segments = []kernel.Segment{{Vaddr: kerneltest.X86Text, Paddr: 0x1000000, Size: 4 << 20}}
		change(m)
		k := open(t, m)
		if got, ok := k.PhysBase(); !ok || got != want {
			t.Errorf("%s: got %#x, %v, want %#x", name, got, ok, want)
		}
		if got, err := k.Translate(m.Image(0x300010)); err != nil || got != 0x1300010 {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

// KASLR can put the kernel below the address that it was linked for.
func TestNegativePhysBase(t *testing.T) {
	m := kerneltest.NewX86(4)
	k := open(t, m)
	m.Numbers["phys_base"] = -402653184
	if got, _ := open(t, m).PhysBase(); got != 0xffffffffe8000000 {
		t.Errorf("got %#x", got)
	}
	if _, ok := k.PhysBase(); !ok {
		t.Error("no phys_base")
	}
}

func TestReadVirtAcrossMappings(t *testing.T) {
	m := kerneltest.NewX86(4)
	base := kerneltest.X86Direct
	m.Map(base, 0x30000000, 4096, 12)
	m.Map(base+4096, 0x50000000, 4096, 12)
	m.Write(0x30000000, bytes.Repeat([]byte{'a'}, 4096))
	m.Write(0x50000000, bytes.Repeat([]byte{'b'}, 4096))
	k := open(t, m)
	got := make([]byte, 6)
	if err := k.ReadVirt(got, base+4093); err != nil || string(got) != "aaabbb" {
		t.Errorf("got %q, %v", got, err)
	}
	var fault *kernel.FaultError
	if err := k.ReadVirt(got, base+8190); !errors.As(err, &fault) || fault.Addr != base+8192 {
		t.Errorf("beyond the end: got %v, want a fault at %v", err, base+8192)
	}
	m.Remove(0x50000000)
	if err := open(t, m).ReadVirt(got, base+4096); !errors.Is(err, kerneltest.ErrNoMemory) {
		t.Errorf("missing page: got %v", err)
	}
}

// Page tables that point at themselves end after as many levels as there are.
func TestLoopingPageTables(t *testing.T) {
	for name, build := range machines {
		m := build()
		va := m.Image(0)
		at := m.EntryAddr(va, m.Levels()-1)
		m.Write(at, kerneltest.Uint64(uint64(at&^mem.PhysAddr(m.PageSize()-1))|3|m.EntryBits))
		k := open(t, m)
		if len(k.Warnings()) == 0 || k.Verified() {
			t.Errorf("%s: no warning about tables that do not map themselves", name)
		}
		_, _ = k.Translate(va) // ends
	}
}

// Where page tables are missing from a partial dump, what the dump file says of
// the image still holds.
func TestMissingPageTables(t *testing.T) {
	for name, build := range machines {
		m := build()
		m.Remove(m.EntryAddr(m.Image(0), 1))
		k := open(t, m)
		if got, err := k.Translate(m.Image(0x1000)); err != nil || got != 0x1001000 {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
		_, err := k.Translate(0xffffffff40000000)
		if err == nil {
			t.Errorf("%s: an address outside the image translates", name)
		}
	}
}

func TestUnsupported(t *testing.T) {
	for name, change := range map[string]func(*kernel.Config){
		"machine":         func(c *kernel.Config) { c.Machine = elf.EM_S390 },
		"byte order":      func(c *kernel.Config) { c.ByteOrder = binary.BigEndian },
		"page size":       func(c *kernel.Config) { c.PageSize = 65536; c.Info = kerneltest.NewARM64Pages(16, 48, 48).Info },
		"other page size": func(c *kernel.Config) { c.Info = kerneltest.NewARM64Pages(14, 48, 48).Info },
		"8 KiB on arm64":  func(c *kernel.Config) { c.PageSize = 8192; c.Machine = elf.EM_AARCH64; c.Info = kerneltest.NewInfo() },
		"absurd page":     func(c *kernel.Config) { c.PageSize = 3 },
		"no VMCOREINFO":   func(c *kernel.Config) { c.Info = kerneltest.NewInfo() },
		"arm64 no info":   func(c *kernel.Config) { c.Info, c.Machine = kerneltest.NewInfo(), elf.EM_AARCH64 },
		"no memory at it": func(c *kernel.Config) { c.Memory = &kerneltest.Memory{} },
	} {
		cfg := kerneltest.NewX86(4).Config()
		change(&cfg)
		k, err := kernel.New(cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if k.Supported() || k.Verified() || len(k.Warnings()) == 0 {
			t.Errorf("%s: supported %v, warnings %q", name, k.Supported(), k.Warnings())
		}
		// Frames of RAM are counted in the dump's pages, understood or not.
		if size := cfg.PageSize; size > 3 && 1<<k.PageShift() != size {
			t.Errorf("%s: pages of %d bytes, want %d", name, 1<<k.PageShift(), size)
		}
		if _, err := k.Translate(0xffff888000000000); !errors.Is(err, kernel.ErrNoPageTables) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAbsurdARM64Keys(t *testing.T) {
	for name, change := range map[string]func(*kerneltest.Info){
		"T1SZ 0":      func(i *kerneltest.Info) { i.Numbers["TCR_EL1_T1SZ"] = 0 },
		"T1SZ -1":     func(i *kerneltest.Info) { i.Numbers["TCR_EL1_T1SZ"] = -1 },
		"VA_BITS 200": func(i *kerneltest.Info) { i.Numbers["VA_BITS"] = 200; delete(i.Numbers, "TCR_EL1_T1SZ") },
		"no voffset":  func(i *kerneltest.Info) { delete(i.Numbers, "kimage_voffset") },
		"no root":     func(i *kerneltest.Info) { delete(i.Symbols, "swapper_pg_dir") },
	} {
		m := kerneltest.NewARM64(48)
		change(m.Info)
		if k := open(t, m); len(k.Warnings()) == 0 {
			t.Errorf("%s: no warning", name)
		}
	}
}

func TestUtsname(t *testing.T) {
	m := kerneltest.NewX86(4)
	want := uts.Name{
		Sysname: "Linux", Nodename: "host-1", Release: "6.1.0-56-cloud-amd64",
		Version: "#1 SMP", Machine: "x86_64", Domainname: "(none)",
	}
	m.SetUtsname(m.Image(0x1000), 4, want)
	if got, err := open(t, m).Utsname(); err != nil || got != want {
		t.Errorf("before 5.11: got %+v, %v", got, err)
	}
	m.SetUtsname(m.Image(0x2000), 0, want)
	m.Offsets["uts_namespace.name"] = 0
	if got, err := open(t, m).Utsname(); err != nil || got != want {
		t.Errorf("with the offset: got %+v, %v", got, err)
	}
	for name, change := range map[string]func(){
		"no closing NUL": func() { m.WriteVirt(m.Image(0x2000+65), bytes.Repeat([]byte{'x'}, 65)) },
		"not Linux":      func() { m.WriteVirt(m.Image(0x2000), []byte("MINIX")) },
		"wild offset":    func() { m.Offsets["uts_namespace.name"] = 1 << 60 },
		"no symbol":      func() { delete(m.Symbols, "init_uts_ns") },
	} {
		change()
		if u, err := open(t, m).Utsname(); err == nil || u != (uts.Name{}) {
			t.Errorf("%s: got %+v, %v", name, u, err)
		}
	}
}

func FuzzPageTables(f *testing.F) {
	f.Add(uint64(0xffffffff81000000), uint64(1), uint64(0x63), uint8(0))
	f.Add(uint64(0xffff888000001000), uint64(0x1200063), uint64(0xffffffffffffffff), uint8(4))
	f.Fuzz(func(t *testing.T, va, entry, other uint64, which uint8) {
		builders := []func() *kerneltest.Machine{
			machines["x86_64 4 levels"], machines["x86_64 5 levels"],
			machines["arm64 39 bits"], machines["arm64 48 bits"], machines["arm64 52 bits"],
			machines["arm64 16 KiB 52 bits"], machines["arm64 64 KiB 48 of 52"],
		}
		m := builders[int(which)%len(builders)]()
		m.Write(0x1200000, bytes.Repeat(kerneltest.Uint64(entry), 512))
		m.Write(0x10000000, bytes.Repeat(kerneltest.Uint64(other), 512))
		k := open(t, m)
		mapping, err := k.Lookup(mem.VirtAddr(va))
		if err == nil && mapping.Size == 0 {
			t.Errorf("empty mapping at %#x", va)
		}
		if err == nil && uint64(mapping.Phys) >= 1<<52 {
			t.Errorf("address %v is wider than 52 bits", mapping.Phys)
		}
	})
}

// TestReadHoley reads around pages that are missing.
func TestReadHoley(t *testing.T) {
	const page = kerneltest.PageSize
	m := kerneltest.NewX86(4)
	m.WriteVirt(m.Image(0), bytes.Repeat([]byte{7}, 8*page))
	for _, missing := range []uint64{2, 3, 6} {
		m.Remove(mem.PhysAddr(m.Image(missing*page) - m.ImageAddr(0)))
	}
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.Repeat([]byte{9}, 6*page)
	lost, err := k.ReadHoley(b, m.Image(page/2))
	want := kernel.Holes{{Start: 3 * page / 2, End: 7 * page / 2}, {Start: 11 * page / 2, End: 6 * page}}
	if err != nil || !slices.Equal(lost, want) || lost.Bytes() != 5*page/2 || !slices.Equal(lost.From(2*page), kernel.Holes{{Start: 0, End: 3 * page / 2}, {Start: 7 * page / 2, End: 4 * page}}) {
		t.Errorf("got %v, %v", lost, err)
	}
	for i, c := range b {
		if want := byte(7); lost.Has(i, i+1) && c != 0 || !lost.Has(i, i+1) && c != want {
			t.Fatalf("byte %d is %d", i, c)
		}
	}
	if lost, err := k.ReadHoley(b[:page], m.Image(2*page)); err == nil || lost.Bytes() != page {
		t.Errorf("got %v, %v", lost, err)
	}
	if lost, err := k.ReadHoley(b[:page], m.Image(0)); err != nil || len(lost) > 0 || lost.Has(0, page) {
		t.Errorf("got %v, %v", lost, err)
	}
}
