package kerneltest

import (
	"encoding/binary"

	"github.com/corehaul/corehaul/mem"
)

// Addresses and sizes of the memory map of all machines here.
const (
	Vmemmap          = mem.VirtAddr(0xffffea0000000000) // struct page of frame 0 (mapped with 2 MiB)
	SectionBits      = 27                               // 128 MiB, as x86_64 and arm64 have it
	PagesPerSection  = 1 << (SectionBits - 12)
	StructPage       = 64 // bytes
	memSection       = 16 // bytes of struct mem_section
	maxPhysmemBits   = 46
	section64K       = 29 // SECTION_SIZE_BITS of arm64 with pages of 64 KiB (arch/arm64/include/asm/sparsemem.h)
	sectionHasMemmap = 3  // SECTION_MARKED_PRESENT | SECTION_HAS_MEM_MAP
	sectionEarly     = 1 << 3
)

// Page flags and types of the machines here: those of 6.1 and 6.12 for x86_64.
const (
	FlagLRU        = 1 << 4
	FlagSlab       = 1 << 9
	FlagSwapcache  = 1 << 10
	FlagPrivate    = 1 << 13
	FlagHead       = 1 << 16
	FlagSwapbacked = 1 << 19
	FlagHWPoison   = 1 << 22

	MappingAnon = 1
	NoType      = ^uint32(0) // _mapcount of a page that is not mapped

	hugetlbDtor = 2
)

// Types are the values of the page type word of a kernel.
type Types struct {
	Buddy, Offline, Slab, Hugetlb uint32 // Slab and Hugetlb 0: the kernel has no such type
	Unaccepted                    uint32 // 0: the kernel has no such type
}

// Types61 are those of kernels 5.10 to 6.8, Types612 those since 6.11.
var (
	Types61  = Types{Buddy: ^uint32(0x80), Offline: ^uint32(0x100)}
	Types612 = Types{Buddy: 0xf0 << 24, Offline: 0xf1 << 24, Hugetlb: 0xf4 << 24, Slab: 0xf5 << 24, Unaccepted: 0xf6 << 24}
)

// Page has the fields of a struct page that tests set. The zero Page is a page of the kernel.
type Page struct {
	Flags, Mapping, Private uint64
	Type                    uint32 // 0 means NoType
	Head                    uint64 // compound_head, low bit set for a tail page
}

// Memmap is the memory map of a machine.
type Memmap struct {
	m     *Machine
	types Types
	table mem.VirtAddr
	maps  map[uint64]mem.PhysAddr // address of the struct pages of a section
}

// AddMemmap gives the machine an empty mem_section table and its VMCOREINFO, with types.
func (m *Machine) AddMemmap(types Types, maxSections uint64) *Memmap {
	perRoot := m.sectionsPerRoot()
	roots := (maxSections + perRoot - 1) / perRoot
	mm := &Memmap{m: m, types: types, table: m.heap(roots * 8), maps: map[uint64]mem.PhysAddr{}}
	m.Symbols["mem_section"] = uint64(mm.table)
	m.Lengths["mem_section"] = 1 << (maxPhysmemBits - m.sectionBits()) / perRoot
	m.Sizes["mem_section"] = memSection
	m.Offsets["mem_section.section_mem_map"] = 0
	m.Numbers["SECTION_SIZE_BITS"] = int64(m.sectionBits())
	m.Numbers["MAX_PHYSMEM_BITS"] = maxPhysmemBits
	m.Lengths["zone.free_area"] = m.Orders()
	mm.describePage()
	return mm
}

func (m *Machine) sectionBits() uint {
	if m.shift == 16 {
		return section64K
	}
	return SectionBits
}

// Orders returns how many orders of free blocks the machine's kernel has: CONFIG_ARCH_FORCE_MAX_ORDER of arm64, plus 1.
func (m *Machine) Orders() uint64 { return map[uint]uint64{12: 11, 14: 12, 16: 14}[m.shift] }

// SectionPages returns the number of page frames of a section.
func (m *Machine) SectionPages() uint64 { return 1 << (m.sectionBits() - m.shift) }

func (m *Machine) sectionsPerRoot() uint64 { return uint64(m.PageSize() / memSection) }

func (mm *Memmap) describePage() {
	info := mm.m.Info
	info.Sizes["page"] = StructPage
	for name, offset := range map[string]uint64{
		"flags": 0, "compound_head": 8, "compound_dtor": 16, "compound_order": 17, "mapping": 24, "private": 40, "_mapcount": 48,
	} {
		info.Offsets["page."+name] = offset
	}
	for name, bit := range map[string]int64{
		"PG_lru": 4, "PG_swapcache": 10, "PG_private": 13, "PG_swapbacked": 19, "PG_hwpoison": 22, "PG_head_mask": FlagHead,
	} {
		info.Numbers[name] = bit
	}
	number := func(key string, v uint32) { info.Numbers[key] = int64(int32(v)) }
	number("PAGE_BUDDY_MAPCOUNT_VALUE", mm.types.Buddy)
	number("PAGE_OFFLINE_MAPCOUNT_VALUE", mm.types.Offline)
	if mm.types.Slab == 0 {
		info.Numbers["PG_slab"] = 9
		info.Numbers["HUGETLB_PAGE_DTOR"] = hugetlbDtor
		info.Strings["OSRELEASE"] = "6.1.0-0-test"
		return
	}
	delete(info.Offsets, "page.compound_dtor")
	delete(info.Offsets, "page.compound_order")
	number("PAGE_SLAB_MAPCOUNT_VALUE", mm.types.Slab)
	number("PAGE_HUGETLB_MAPCOUNT_VALUE", mm.types.Hugetlb)
	number("PAGE_UNACCEPTED_MAPCOUNT_VALUE", mm.types.Unaccepted)
	info.Strings["OSRELEASE"] = "6.12.0-0-test"
}

// heap allocates memory in the direct map.
func (m *Machine) heap(size uint64) mem.VirtAddr {
	pa := m.Alloc(size)
	va := m.direct + mem.VirtAddr(pa)
	m.Map(va, pa, (size+1<<21-1)&^(1<<21-1), m.blockShift())
	return va
}

// AddSections gives the machine a mem_section table in which these sections have struct
// pages at Vmemmap, which the caller maps. In VMCOREINFO, it only sets SYMBOL(mem_section).
func (m *Machine) AddSections(sections ...uint64) {
	mm := &Memmap{m: m, table: m.heap(PageSize)}
	m.Symbols["mem_section"] = uint64(mm.table)
	for _, nr := range sections {
		mm.SetSection(nr, uint64(m.vmemmap)|sectionHasMemmap|sectionEarly)
	}
}

// AddSection gives section nr struct pages, all of kernel pages, and returns their address.
func (mm *Memmap) AddSection(nr uint64) mem.PhysAddr {
	n := mm.m.SectionPages()
	pa := mm.m.Alloc(n * StructPage)
	mm.MapSection(nr, pa, mm.m.blockShift())
	for i := range n {
		mm.Set(mem.PFN(nr*n+i), Page{})
	}
	return pa
}

// MapSection puts the struct pages of section nr at pa, mapped with entries of 1<<shift bytes.
func (mm *Memmap) MapSection(nr uint64, pa mem.PhysAddr, shift uint) {
	size := mm.m.SectionPages() * StructPage
	mm.m.Map(mm.m.vmemmap+mem.VirtAddr(nr*size), pa, max(size, uint64(1)<<shift), shift)
	mm.maps[nr] = pa
	// Each section stores its map less its first frame. With a virtual memory map, the
	// result is the same for all sections.
	mm.SetSection(nr, uint64(mm.m.vmemmap)|sectionHasMemmap|sectionEarly)
}

// SetSection writes section_mem_map of section nr.
func (mm *Memmap) SetSection(nr, value uint64) {
	perRoot := mm.m.sectionsPerRoot()
	slot := mm.table + mem.VirtAddr(nr/perRoot*8)
	root := mm.readUint64(slot)
	if root == 0 {
		root = uint64(mm.m.heap(uint64(mm.m.PageSize())))
		mm.m.Write(mm.m.Direct(slot), Uint64(root))
	}
	mm.m.Write(mm.m.Direct(mem.VirtAddr(root+nr%perRoot*memSection)), Uint64(value))
}

// Direct returns the physical address of one in the direct map.
func (m *Machine) Direct(va mem.VirtAddr) mem.PhysAddr { return mem.PhysAddr(va - m.direct) }

func (mm *Memmap) readUint64(va mem.VirtAddr) uint64 {
	var b [8]byte
	if err := mm.m.ReadPhys(b[:], mm.m.Direct(va)); err != nil {
		panic(err)
	}
	return binary.LittleEndian.Uint64(b[:])
}

// StructPageAddr returns the physical address of the struct page of a frame of an added section.
func (mm *Memmap) StructPageAddr(pfn mem.PFN) mem.PhysAddr {
	n := mem.PFN(mm.m.SectionPages())
	pa, ok := mm.maps[uint64(pfn/n)]
	if !ok {
		panic("a frame of no section")
	}
	return pa + mem.PhysAddr(pfn%n*StructPage)
}

// StructPageVirt returns the virtual address of the struct page of a frame.
func (mm *Memmap) StructPageVirt(pfn mem.PFN) mem.VirtAddr {
	return mm.m.vmemmap + mem.VirtAddr(pfn)*StructPage
}

// Bytes returns the struct page of p.
func (p Page) Bytes() []byte {
	b := make([]byte, StructPage)
	binary.LittleEndian.PutUint64(b, p.Flags)
	binary.LittleEndian.PutUint64(b[8:], p.Head)
	binary.LittleEndian.PutUint64(b[24:], p.Mapping)
	binary.LittleEndian.PutUint64(b[40:], p.Private)
	if p.Type == 0 {
		p.Type = NoType
	}
	binary.LittleEndian.PutUint32(b[48:], p.Type)
	return b
}

// Set writes the struct page of a frame of an added section.
func (mm *Memmap) Set(pfn mem.PFN, p Page) {
	mm.m.Write(mm.StructPageAddr(pfn), p.Bytes())
}

// SetCompound writes a compound page of 1<<order frames from pfn on. head is its first struct page.
func (mm *Memmap) SetCompound(pfn mem.PFN, order uint8, head Page, hugetlb bool) {
	head.Flags |= FlagHead
	if hugetlb && mm.types.Hugetlb != 0 {
		head.Type = mm.types.Hugetlb
	}
	mm.Set(pfn, head)
	tail := uint64(mm.StructPageVirt(pfn)) | 1
	for i := mem.PFN(1); i < 1<<order; i++ {
		mm.Set(pfn+i, Page{Head: tail, Mapping: 0xdead000000000400})
	}
	second := Page{Head: tail, Mapping: 0xdead000000000400}.Bytes()
	if mm.types.Slab != 0 {
		second[0] = order // the low byte of _flags_1
	} else {
		second[17] = order
		if hugetlb {
			second[16] = hugetlbDtor
		} else {
			second[16] = 1 // COMPOUND_PAGE_DTOR
		}
	}
	mm.m.Write(mm.StructPageAddr(pfn+1), second)
}

// SetFree writes a free block of 1<<order frames.
func (mm *Memmap) SetFree(pfn mem.PFN, order uint64) {
	mm.Set(pfn, Page{Type: mm.types.Buddy, Private: order})
}
