package pages

import (
	"debug/elf"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// Facts of SPARSEMEM (include/linux/mmzone.h in the kernel tree).
const (
	sectionPresent = 1 << 0 // SECTION_MARKED_PRESENT
	// The low bits of section_mem_map are flags: 5 of them since 5.12, 6 since
	// 6.15. A memory map is aligned far better than that.
	sectionFlags      = 1<<6 - 1
	x86SectionBits    = 27 // SECTION_SIZE_BITS of x86_64, unchanged since 2.6.14
	minSectionBits    = 20
	maxSectionBits    = 32 // the largest in use: 30, arm64 before 5.12
	maxMemSectionSize = 1 << 12
	maxSections       = 1 << 40 // more than any table has room for
)

// sections finds the struct pages of memory sections.
type sections struct {
	k          *kernel.Kernel
	table      mem.VirtAddr // mem_section, or the array of roots
	extreme    bool         // table holds pointers to roots of perRoot sections
	perRoot    uint64
	limit      uint64 // number of sections in the table, 0 if unknown
	size       uint64 // of struct mem_section
	mapOffset  uint64 // of section_mem_map in it
	shift      uint   // log2 of page frames per section
	structPage uint64 // size of struct page
}

// newSections reads the structure of mem_section. It warns and reports false if the memory map cannot be found.
func newSections(k *kernel.Kernel, structPage uint64, last mem.PFN, warn func(string, ...any)) (*sections, bool) {
	info := k.Info()
	s := &sections{k: k, structPage: structPage}
	symbol, ok := info.Symbol("mem_section")
	if !ok {
		warn("VMCOREINFO has no SYMBOL(mem_section): no page can be excluded")
		return nil, false
	}
	s.table = mem.VirtAddr(symbol)
	if !s.readGeometry(warn) || !s.canHold(last, warn) {
		return nil, false
	}
	if s.valid(last) {
		return s, true
	}
	if s.extreme {
		// Since 4.15 (83e3c48729d9) mem_section may be a pointer to the array of
		// roots; which of both addresses VMCOREINFO has depends on the kernel.
		if p, err := k.ReadUint64(s.table); err == nil {
			s.table = mem.VirtAddr(p)
			if s.valid(last) {
				return s, true
			}
		}
	}
	warn("no memory map found at SYMBOL(mem_section)=%#x: no page can be excluded", symbol)
	return nil, false
}

// readGeometry reads sizes, and whether mem_section is a table of roots.
func (s *sections) readGeometry(warn func(string, ...any)) bool {
	info := s.k.Info()
	var okSize, okOffset bool
	s.size, okSize = info.Size("mem_section")
	s.mapOffset, okOffset = info.Offset("mem_section.section_mem_map")
	if !okSize || s.size < 8 || s.size > maxMemSectionSize {
		warn("VMCOREINFO has no usable SIZE(mem_section): no page can be excluded")
		return false
	}
	if !okOffset || s.mapOffset > s.size-8 {
		warn("VMCOREINFO has no usable OFFSET(mem_section.section_mem_map): no page can be excluded")
		return false
	}
	bits, ok := info.Number("SECTION_SIZE_BITS")
	if !ok && s.k.Machine() == elf.EM_X86_64 {
		warn("VMCOREINFO has no NUMBER(SECTION_SIZE_BITS): assuming %d", x86SectionBits)
		bits, ok = x86SectionBits, true
	}
	if !ok || bits < minSectionBits || bits > maxSectionBits {
		warn("VMCOREINFO has no usable NUMBER(SECTION_SIZE_BITS) (%d): no page can be excluded", bits)
		return false
	}
	s.shift = uint(bits) - s.k.PageShift()
	s.perRoot = max(1, 1<<s.k.PageShift()/s.size)
	s.extreme = s.isExtreme(bits)
	if length, ok := info.Length("mem_section"); ok && length <= maxSections {
		s.limit = length
		if s.extreme {
			s.limit = length * s.perRoot
		}
	}
	return true
}

// canHold reports whether the kernel can have memory at frame last, the last frame of RAM. If not, the memory model
// in VMCOREINFO is wrong, and canHold warns.
func (s *sections) canHold(last mem.PFN, warn func(string, ...any)) bool {
	bits, ok := s.k.Info().Number("MAX_PHYSMEM_BITS")
	if !ok || bits >= 64 {
		return true
	}
	shift := s.k.PageShift()
	if a := last.Addr(shift); bits <= int64(shift) || uint64(last)>>(uint(bits)-shift) != 0 { //nolint:gosec // positive
		warn("there is RAM at %v, beyond the %d bits of NUMBER(MAX_PHYSMEM_BITS): no page can be excluded", a, bits)
		return false
	}
	return true
}

// isExtreme distinguishes SPARSEMEM_EXTREME from plain SPARSEMEM by the length of mem_section: one element for each
// root, or one for each section.
func (s *sections) isExtreme(sectionBits int64) bool {
	length, okLength := s.k.Info().Length("mem_section")
	physBits, okBits := s.k.Info().Number("MAX_PHYSMEM_BITS")
	if !okLength || !okBits || physBits < sectionBits || physBits >= 64 {
		return true // as every kernel of both architectures is built
	}
	count := uint64(1) << uint(physBits-sectionBits) //nolint:gosec // checked above
	return length != count || s.perRoot == 1
}

// valid reports whether a section up to that of frame last has a memory map. It looks at maxProbes sections at most.
func (s *sections) valid(last mem.PFN) bool {
	const maxProbes = 1 << 16
	if s.table>>63 == 0 {
		return false
	}
	for nr := uint64(0); nr <= min(s.number(last), maxProbes); nr++ {
		if memmap, ok, err := s.memmap(nr); err == nil && ok {
			return memmap>>63 != 0
		}
	}
	return false
}

// number returns the section of frame pfn.
func (s *sections) number(pfn mem.PFN) uint64 { return uint64(pfn) >> s.shift }

// start returns the first frame of section nr.
func (s *sections) start(nr uint64) mem.PFN { return mem.PFN(nr << s.shift) }

// memmap returns the address of the struct page of the first frame of section nr. It reports false for a section
// without struct pages.
func (s *sections) memmap(nr uint64) (mem.VirtAddr, bool, error) {
	if s.limit > 0 && nr >= s.limit {
		return 0, false, nil
	}
	entry := s.table + mem.VirtAddr(nr*s.size)
	if s.extreme {
		root, err := s.k.ReadUint64(s.table + mem.VirtAddr(nr/s.perRoot*8))
		if err != nil || root == 0 {
			return 0, false, err
		}
		entry = mem.VirtAddr(root + nr%s.perRoot*s.size)
	}
	coded, err := s.k.ReadUint64(entry + mem.VirtAddr(s.mapOffset))
	if err != nil || coded&sectionPresent == 0 || coded&^sectionFlags == 0 {
		return 0, false, err
	}
	// The map is stored so that adding the frame number, not the number within
	// the section, gives the struct page.
	return mem.VirtAddr(coded&^sectionFlags + uint64(s.start(nr))*s.structPage), true, nil
}
