package kernel

import "github.com/corehaul/corehaul/mem"

// Constants of x86_64 (arch/x86/include/asm/page_64_types.h and
// pgtable_types.h in the kernel tree). The addresses are the same for every
// kernel since 2.6.11; KASLR moves the kernel inside its 1 GiB window.
const (
	x86ImageStart   = mem.VirtAddr(0xffffffff80000000) // __START_KERNEL_map
	x86ImageSize    = 1 << 30                          // KERNEL_IMAGE_SIZE with KASLR
	x86Present      = 1 << 0                           // _PAGE_PRESENT
	x86PSE          = 1 << 7                           // _PAGE_PSE: a large page at levels 1 and 2
	x86PageShift    = 12                               // PAGE_SHIFT
	x86AddrMask     = 1<<52 - 1<<x86PageShift          // address bits of an entry
	x86LargestLevel = 2                                // a 1 GiB page in the PUD
	x86KernelHalf4  = mem.VirtAddr(1<<64 - 1<<47)
	x86KernelHalf5  = mem.VirtAddr(1<<64 - 1<<56)
)

// setupX86 finds phys_base and the page tables of an x86_64 kernel.
func (k *Kernel) setupX86() {
	bases := k.x86PhysBases()
	k.setX86PhysBase(bases[0])
	if k.shift != x86PageShift {
		k.warnf("page size %d is not one of x86_64: addresses cannot be translated", 1<<k.shift)
		return
	}
	symbol, ok := k.rootSymbol("swapper_pg_dir", "init_top_pgt", "init_level4_pgt")
	if !ok {
		return
	}
	if symbol < x86ImageStart {
		k.warnf("SYMBOL(swapper_pg_dir)=%v is not in the kernel image: addresses cannot be translated", symbol)
		return
	}
	var tables []*paging
	for _, base := range bases {
		tables = append(tables, k.x86Paging(mem.PhysAddr(uint64(symbol-x86ImageStart)+base)))
	}
	if i := k.choosePageTables(symbol, tables); i > 0 {
		k.warnf("NUMBER(phys_base)=%#x is wrong, using %#x", bases[0], bases[i])
		k.setX86PhysBase(bases[i])
	}
}

func (k *Kernel) setX86PhysBase(base uint64) {
	k.physBase, k.hasBase = base, true
	k.image = imageMap{
		start: x86ImageStart,
		end:   x86ImageStart + x86ImageSize,
		delta: base - uint64(x86ImageStart), // modulo 2^64
	}
}

// x86PhysBases returns the possible values of phys_base, the likeliest first. Kernels since 4.10 have
// NUMBER(phys_base), a signed value: KASLR can put the kernel below its link address. Older kernels show it in the
// PT_LOAD of their text.
func (k *Kernel) x86PhysBases() []uint64 {
	var bases []uint64
	if base, ok := k.numberBits("phys_base"); ok {
		bases = append(bases, base)
	}
	for _, s := range k.cfg.TextSegments {
		if s.Vaddr >= x86ImageStart && s.Vaddr-x86ImageStart < x86ImageSize {
			bases = append(bases, uint64(s.Paddr)-uint64(s.Vaddr-x86ImageStart))
			break
		}
	}
	if len(bases) == 0 {
		k.warnf("VMCOREINFO has no NUMBER(phys_base) and no segment holds the kernel's text: assuming 0")
		bases = append(bases, 0)
	}
	return bases
}

// x86Paging returns the page tables at root.
func (k *Kernel) x86Paging(root mem.PhysAddr) *paging {
	g := &paging{memory: k.cfg.Memory, root: root, shift: x86PageShift, levels: 4, lowest: x86KernelHalf4}
	g.topBits = g.levelBits()
	if n, ok := k.cfg.Info.Number("pgtable_l5_enabled"); ok && n != 0 {
		g.levels, g.lowest = 5, x86KernelHalf5
	}
	mask := uint64(x86AddrMask)
	if sme, ok := k.numberBits("sme_mask"); ok {
		// The encryption bit lies among the address bits of an entry.
		mask &^= sme
	}
	g.decode = func(entry uint64, level int) (entryKind, uint64) {
		switch {
		case entry&x86Present == 0:
			return entryAbsent, 0
		case level == 0, entry&x86PSE != 0 && level <= x86LargestLevel:
			return entryPage, entry & mask
		default:
			return entryTable, entry & mask
		}
	}
	return g
}
