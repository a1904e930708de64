package kerneltest

import (
	"debug/elf"
	"fmt"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
)

// Addresses and sizes in every machine of this package.
const (
	X86Text   = mem.VirtAddr(0xffffffff81000000)
	X86Direct = mem.VirtAddr(0xffff888000000000)
	ARMText   = mem.VirtAddr(0xffff800008000000)

	imagePhys = mem.PhysAddr(0x1000000)  // the kernel image, 2 MiB aligned
	imageSize = uint64(4 << 20)          // bytes
	rootPhys  = imagePhys + 0x200000     // the top page table, in the image
	tablePhys = mem.PhysAddr(0x10000000) // tables are allocated from here up
	heapPhys  = mem.PhysAddr(0x20000000) // and everything else from here
)

// Machine is a generated machine: memory, VMCOREINFO, and page tables that map the kernel
// image and what Map maps.
type Machine struct {
	Memory
	*Info
	Type     elf.Machine
	Segments []kernel.Segment

	// EntryBits are set in every page table entry, for example the SME bit.
	EntryBits uint64

	shift     uint // log2 of the page size
	levels    int
	rootBits  uint // address bits for which the root table is made
	text      mem.VirtAddr
	direct    mem.VirtAddr // of physical address 0 in the direct map
	vmemmap   mem.VirtAddr // of the struct page of frame 0
	root      mem.PhysAddr
	nextTable mem.PhysAddr
	nextHeap  mem.PhysAddr
	lpa2      bool
}

// NewX86 returns an x86_64 machine with 4 or 5 levels of page tables.
func NewX86(levels int) *Machine {
	m := newMachine(elf.EM_X86_64, 12, uint(12+9*levels), X86Text)
	phys := uint64(imagePhys)
	m.Numbers["phys_base"] = int64(phys - uint64(X86Text-0xffffffff80000000))
	if levels == 5 {
		m.Numbers["pgtable_l5_enabled"] = 1
	} else {
		m.Numbers["pgtable_l5_enabled"] = 0
	}
	m.mapImage()
	return m
}

// NewARM64 returns an arm64 machine with pages of 4 KiB and addresses of vaBits bits. With 52 bits it uses LPA2.
func NewARM64(vaBits int) *Machine { return NewARM64Pages(12, vaBits, vaBits) }

// NewARM64Pages returns an arm64 machine with pages of 1<<shift bytes (12, 14 or 16) whose kernel is
// built for addresses of builtBits bits and runs with vaBits. With 52 bits it uses LPA2 or, with pages of
// 64 KiB, LVA. LVA kernels keep the root table of builtBits (TTBR1_BADDR_4852_OFFSET in
// arch/arm64/include/asm/pgtable-hwdef.h). The others use fewer levels.
func NewARM64Pages(shift uint, builtBits, vaBits int) *Machine {
	rootBits := uint(vaBits)
	if shift == 16 {
		rootBits = uint(builtBits)
	}
	lowest := mem.VirtAddr(^uint64(0) << vaBits)
	text := ARMText
	if vaBits < 48 { // the image must lie in what the tables can map
		text = lowest + 0x8000000
	}
	m := newMachine(elf.EM_AARCH64, shift, rootBits, text)
	if vaBits < 48 {
		m.direct, m.vmemmap = lowest+1<<(vaBits-2), lowest+1<<(vaBits-1)
	}
	m.lpa2 = vaBits == 52 && shift != 16
	m.Numbers["VA_BITS"] = int64(builtBits)
	m.Numbers["TCR_EL1_T1SZ"] = int64(64 - vaBits)
	m.Numbers["PHYS_OFFSET"] = 0
	m.Numbers["kimage_voffset"] = int64(uint64(m.text) - uint64(imagePhys))
	m.mapImage()
	return m
}

func newMachine(t elf.Machine, shift, rootBits uint, text mem.VirtAddr) *Machine {
	m := &Machine{
		Info: NewInfo(), Type: t, shift: shift, rootBits: rootBits, text: text, direct: X86Direct, vmemmap: Vmemmap,
		root: rootPhys, nextTable: tablePhys, nextHeap: heapPhys,
	}
	m.levels = int((rootBits - shift + m.tableShift() - 1) / m.tableShift())
	m.Strings["PAGESIZE"] = fmt.Sprint(m.PageSize())
	m.Write(m.root, make([]byte, m.PageSize()))
	return m
}

// PageSize returns the machine's page size in bytes.
func (m *Machine) PageSize() int { return 1 << m.shift }

// Levels returns how many levels the page tables have.
func (m *Machine) Levels() int { return m.levels }

// tableShift is how many bits of an address a full table translates.
func (m *Machine) tableShift() uint { return m.shift - 3 }

// LevelShift returns the binary logarithm of what an entry at a level maps; 0 is the last level.
func (m *Machine) LevelShift(level int) uint {
	return m.shift + m.tableShift()*uint(level)
}

// blockShift is the binary logarithm of the size with which memory is mapped: blocks of 2 MiB with pages of
// 4 KiB, otherwise pages, because larger blocks exceed all that is mapped here.
func (m *Machine) blockShift() uint {
	if m.shift == 12 {
		return 21
	}
	return m.shift
}

// mapImage maps the kernel image, the top page table in it.
func (m *Machine) mapImage() {
	m.Symbols["swapper_pg_dir"] = uint64(m.ImageAddr(m.root))
	m.Symbols["_stext"] = uint64(m.text)
	m.Map(m.text, imagePhys, imageSize, m.blockShift())
}

// ImageAddr returns the virtual address of a physical one in the kernel image.
func (m *Machine) ImageAddr(a mem.PhysAddr) mem.VirtAddr {
	return m.text + mem.VirtAddr(a-imagePhys)
}

// Image returns the address of free space in the kernel image, for variables.
func (m *Machine) Image(offset uint64) mem.VirtAddr {
	return m.text + mem.VirtAddr(offset)
}

// Config returns the argument of kernel.New for the machine.
func (m *Machine) Config() kernel.Config {
	return kernel.Config{Memory: &m.Memory, Info: m.Info, Machine: m.Type, PageSize: m.PageSize(), TextSegments: m.Segments}
}

// Map maps size bytes at va to pa with entries of 1<<shift bytes, one of LevelShift (with pages of
// 4 KiB 12, 21 or 30).
func (m *Machine) Map(va mem.VirtAddr, pa mem.PhysAddr, size uint64, shift uint) {
	for done := uint64(0); done < size; done += 1 << shift {
		m.mapOne(va+mem.VirtAddr(done), pa+mem.PhysAddr(done), shift)
	}
}

func (m *Machine) mapOne(va mem.VirtAddr, pa mem.PhysAddr, shift uint) {
	table := m.root
	for level := m.levels - 1; ; level-- {
		at := table + m.index(va, level)*8
		if m.LevelShift(level) == shift {
			m.Write(at, Uint64(m.leaf(pa, level)))
			return
		}
		table = m.table(at)
	}
}

// index returns the index of va's entry in a table. The root table translates the remaining bits of
// rootBits.
func (m *Machine) index(va mem.VirtAddr, level int) mem.PhysAddr {
	bits := m.tableShift()
	if level == m.levels-1 {
		bits = m.rootBits - m.LevelShift(level)
	}
	return mem.PhysAddr(uint64(va) >> m.LevelShift(level) & (1<<bits - 1))
}

// EntryAddr returns the physical address of va's entry at a level. 0 is the last level.
func (m *Machine) EntryAddr(va mem.VirtAddr, level int) mem.PhysAddr {
	table := m.root
	for l := m.levels - 1; l > level; l-- {
		table = m.table(table + m.index(va, l)*8)
	}
	return table + m.index(va, level)*8
}

// table returns the table to which the entry at an address points. It makes one if there is none.
func (m *Machine) table(at mem.PhysAddr) mem.PhysAddr {
	var b [8]byte
	if err := m.ReadPhys(b[:], at); err != nil {
		panic(err)
	}
	if entry := leUint64(b[:]); entry != 0 {
		return mem.PhysAddr(entry & (1<<48 - 1<<m.shift) &^ m.EntryBits)
	}
	next := m.nextTable
	m.nextTable += mem.PhysAddr(m.PageSize())
	m.Write(next, make([]byte, m.PageSize()))
	m.Write(at, Uint64(uint64(next)|m.tableBits()))
	return next
}

func (m *Machine) tableBits() uint64 {
	if m.Type == elf.EM_AARCH64 {
		return 3 | m.EntryBits
	}
	return 0x63 | m.EntryBits
}

// leaf returns the entry that maps a page, or at a level above 0 a block, at pa.
func (m *Machine) leaf(pa mem.PhysAddr, level int) uint64 {
	if m.Type != elf.EM_AARCH64 {
		entry := uint64(pa) | 1<<63 | 0x163 | m.EntryBits // NX, global
		if level > 0 {
			entry |= 0x80
		}
		return entry
	}
	entry := uint64(0x78)<<48&^(3<<50) | 0x401 | m.EntryBits
	switch {
	case m.lpa2:
		entry |= uint64(pa)&(1<<50-1) | uint64(pa)>>50<<8
	case m.shift == 16:
		entry |= uint64(pa)&(1<<48-1) | uint64(pa)>>48<<12 | 3<<8
	default:
		entry |= uint64(pa) | 3<<8 // inner shareable
	}
	if level == 0 {
		entry |= 2
	}
	return entry
}

func leUint64(b []byte) uint64 {
	var v uint64
	for i := range 8 {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}

// Alloc returns size bytes of memory filled with zeros, aligned to 2 MiB.
func (m *Machine) Alloc(size uint64) mem.PhysAddr {
	a := m.nextHeap
	m.nextHeap += mem.PhysAddr((size + 1<<21 - 1) &^ (1<<21 - 1))
	m.Write(a, make([]byte, size))
	return a
}

// WriteVirt stores b at a mapped virtual address.
func (m *Machine) WriteVirt(va mem.VirtAddr, b []byte) {
	k, err := kernel.New(m.Config())
	if err != nil {
		panic(err)
	}
	for len(b) > 0 {
		mapping, err := k.Lookup(va)
		if err != nil {
			panic(err)
		}
		n := min(uint64(len(b)), mapping.Size)
		m.Write(mapping.Phys, b[:n])
		b, va = b[n:], va+mem.VirtAddr(n)
	}
}

// SetUtsname writes an init_uts_ns at va with the name at an offset in it.
func (m *Machine) SetUtsname(va mem.VirtAddr, offset uint64, u uts.Name) {
	m.Symbols["init_uts_ns"] = uint64(va)
	var b [6 * uts.FieldLen]byte
	for i, s := range u.Fields() {
		copy(b[i*uts.FieldLen:][:uts.MaxLen], *s)
	}
	m.WriteVirt(va+mem.VirtAddr(offset), b[:])
}
