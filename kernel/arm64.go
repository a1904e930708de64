package kernel

import (
	"slices"

	"github.com/corehaul/corehaul/mem"
)

// Constants of arm64 (Arm ARM, chapter D8 "The AArch64 Virtual Memory System Architecture";
// arch/arm64/include/asm/pgtable-hwdef.h and pgtable-prot.h of Linux 6.12).
const (
	armValid     = 1 << 0
	armTable     = 1 << 1                  // a table at levels above the last, a page at the last
	armAddrBits  = 1<<48 - 1               // output address bits 47 and down, to the page size
	armLPA2Bits  = 1<<50 - 1               // with LPA2: bits 49 and down (PTE_ADDR_LOW) ...
	armLPA2High  = 3 << 8                  // ... and bits 9:8 hold bits 51:50 (PTE_ADDR_HIGH)
	armLPA2Shift = 50 - 8                  // from there to their place (PTE_ADDR_HIGH_SHIFT)
	armLPAHigh   = 0xf << 12               // with pages of 64 KiB bits 15:12 hold bits 51:48, without LPA zeros
	armLPAShift  = 48 - 12                 // from there to their place
	armMinVABits = 36                      // the fewest that Linux can be built for, with pages of 16 KiB
	armMaxVABits = 52                      // the most; with pages of 4 and 16 KiB only LPA2 has so many
	armT1SZMask  = 0x3f                    // TCR_EL1.T1SZ is six bits wide
	armImageSpan = mem.VirtAddr(256 << 20) // how far from its page tables an image reaches

	arm4K, arm16K, arm64K = 12, 14, 16 // granules, as binary logarithms
)

// setupARM64 finds the page tables of an arm64 kernel.
func (k *Kernel) setupARM64() {
	if k.physBase, k.hasBase = k.numberBits("PHYS_OFFSET"); !k.hasBase {
		k.warnf("VMCOREINFO has no NUMBER(PHYS_OFFSET): phys_base of the dump is not known")
	}
	if k.shift != arm4K && k.shift != arm16K && k.shift != arm64K {
		k.warnf("page size %d is not one of arm64: addresses cannot be translated", 1<<k.shift)
		return
	}
	symbol, ok := k.rootSymbol("swapper_pg_dir")
	if !ok {
		return
	}
	bits, ok := k.armVABits()
	if !ok {
		return
	}
	offsets := k.armImageOffsets()
	if len(offsets) == 0 {
		k.warnf("VMCOREINFO has no NUMBER(kimage_voffset) and no segment holds the kernel: addresses cannot be translated")
		return
	}
	tables, offsetOf := k.armTables(symbol, bits, offsets)
	i := max(k.choosePageTables(symbol, tables), 0)
	k.image = imageMap{start: symbol - armImageSpan, end: symbol + armImageSpan, delta: -offsetOf[i]}
}

// armTables returns the possible page tables, the likeliest first, and the kimage_voffset that each of them assumes.
func (k *Kernel) armTables(symbol mem.VirtAddr, bits uint, offsets []uint64) (tables []*paging, offsetOf []uint64) {
	for _, offset := range offsets {
		for _, rootBits := range k.armRootBits(bits) {
			root := mem.PhysAddr(uint64(symbol) - offset)
			tables = append(tables, k.armPaging(root, bits, rootBits))
			offsetOf = append(offsetOf, offset)
		}
	}
	return tables, offsetOf
}

// armVABits returns how many address bits the kernel's page tables translate. NUMBER(VA_BITS) is
// what the kernel was built for. A kernel for 52 bits runs with fewer bits where the processor
// cannot do as many: with 48, or with 47 for pages of 16 KiB (VA_BITS_MIN of
// arch/arm64/include/asm/memory.h). Only TCR_EL1_T1SZ says so (since 5.11, bbdbc11804ff).
func (k *Kernel) armVABits() (uint, bool) {
	if t1sz, ok := k.cfg.Info.Number("TCR_EL1_T1SZ"); ok {
		bits := 64 - uint(t1sz&armT1SZMask)
		if bits >= armMinVABits && bits <= armMaxVABits {
			return bits, true
		}
		k.warnf("NUMBER(TCR_EL1_T1SZ)=%#x makes no sense, using NUMBER(VA_BITS)", t1sz)
	}
	if bits, ok := k.armBuiltBits(); ok {
		return bits, true
	}
	k.warnf("VMCOREINFO has no usable NUMBER(TCR_EL1_T1SZ) or NUMBER(VA_BITS): addresses cannot be translated")
	return 0, false
}

// armBuiltBits returns how many address bits the kernel was built for.
func (k *Kernel) armBuiltBits() (uint, bool) {
	bits, ok := k.cfg.Info.Number("VA_BITS")
	if !ok || bits < armMinVABits || bits > armMaxVABits {
		return 0, false
	}
	return uint(bits), true
}

// armRootBits returns the numbers of address bits for which the tables in memory may be made, the
// likeliest first. With pages of 64 KiB, a kernel that is built for 52 bits has a root table for 52
// bits even where it runs with 48. It then points TTBR1 at the last entries of this table
// (TTBR1_BADDR_4852_OFFSET, offset_ttbr1 in arch/arm64/include/asm/assembler.h). From 5.0 to 5.3 it
// does so for user space alone, which VMCOREINFO does not say. With smaller pages the levels fold,
// and the table is that of the bits in use.
func (k *Kernel) armRootBits(bits uint) []uint {
	if k.shift != arm64K {
		return []uint{bits}
	}
	list := []uint{bits}
	if built, ok := k.armBuiltBits(); ok && built > bits {
		list = []uint{built, bits}
	}
	if !slices.Contains(list, armMaxVABits) {
		list = append(list, armMaxVABits)
	}
	return list
}

// armImageOffsets returns the possible values of kimage_voffset, the virtual minus the physical address of the kernel
// image, the likeliest first.
func (k *Kernel) armImageOffsets() []uint64 {
	var offsets []uint64
	if offset, ok := k.numberBits("kimage_voffset"); ok {
		offsets = append(offsets, offset)
	}
	text, ok := k.cfg.Info.Symbol("_stext")
	if !ok {
		return offsets
	}
	for _, s := range k.cfg.TextSegments {
		if va := mem.VirtAddr(text); va >= s.Vaddr && uint64(va-s.Vaddr) < s.Size {
			offsets = append(offsets, uint64(s.Vaddr)-uint64(s.Paddr))
			break
		}
	}
	return offsets
}

// armPaging returns the page tables at root, which are made for rootBits bits of address and
// translate vaBits of them.
func (k *Kernel) armPaging(root mem.PhysAddr, vaBits, rootBits uint) *paging {
	g := &paging{memory: k.cfg.Memory, root: root, shift: k.shift, lowest: mem.VirtAddr(^uint64(0) << vaBits)}
	g.levels = int((rootBits - g.shift + g.levelBits() - 1) / g.levelBits())
	g.topBits = rootBits - g.levelShift(g.levels-1)
	output := k.armOutput(vaBits)
	// Linux maps blocks with the entries of the last table but one, with pages of 4 KiB also with
	// those above (pud_sect_supported in arch/arm64/include/asm/vmalloc.h and its users).
	blockLevels := 1
	if g.shift == arm4K {
		blockLevels = 2
	}
	g.decode = func(entry uint64, level int) (entryKind, uint64) {
		switch {
		case entry&armValid == 0:
			return entryAbsent, 0
		case level == 0 && entry&armTable != 0:
			return entryPage, output(entry)
		case level > 0 && entry&armTable != 0:
			return entryTable, output(entry)
		case level > 0 && level <= blockLevels:
			return entryPage, output(entry)
		default: // reserved encodings
			return entryAbsent, 0
		}
	}
	return g
}

// armOutput returns the function that extracts the output address of an entry.
func (k *Kernel) armOutput(vaBits uint) func(entry uint64) uint64 {
	inPage := uint64(1)<<k.shift - 1
	switch {
	case k.shift == arm64K:
		return func(entry uint64) uint64 {
			return entry&armAddrBits&^inPage | entry&armLPAHigh<<armLPAShift
		}
	case vaBits == armMaxVABits:
		return func(entry uint64) uint64 {
			return entry&armLPA2Bits&^inPage | entry&armLPA2High<<armLPA2Shift
		}
	}
	// Without LPA2 bits 9:8 are the shareability, 3 for all of Linux.
	return func(entry uint64) uint64 { return entry & armAddrBits &^ inPage }
}
