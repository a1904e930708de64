package kernel

import "github.com/corehaul/corehaul/mem"

// Constants of arm64 with a granule of 4 KiB (Arm ARM, chapter D8 "The AArch64
// Virtual Memory System Architecture"; arch/arm64/include/asm/pgtable-hwdef.h).
const (
	armValid       = 1 << 0
	armTable       = 1 << 1                  // a table at levels above the last, a page at the last
	armAddrMask    = 1<<48 - 1<<pageShift    // output address bits 47:12
	armLPA2Mask    = 1<<50 - 1<<pageShift    // with LPA2: bits 49:12 ...
	armLPA2High    = 3 << 8                  // ... and bits 9:8 hold bits 51:50
	armLPA2Shift   = 50 - 8                  // from there to their place
	armLPA2Bits    = 52                      // only with this many VA bits is LPA2 in use
	armMinVABits   = 36                      // the fewest that Linux can be built for
	armT1SZMask    = 0x3f                    // TCR_EL1.T1SZ is six bits wide
	armImageSpan   = mem.VirtAddr(256 << 20) // how far from its page tables an image reaches
	armBlockLevels = 2                       // blocks of 2 MiB and 1 GiB, at levels 1 and 2
)

// setupARM64 finds the page tables of an arm64 kernel.
func (k *Kernel) setupARM64() {
	if n, ok := k.cfg.Info.Number("PHYS_OFFSET"); ok {
		k.physBase, k.hasBase = uint64(n), true //nolint:gosec // an address as a bit pattern
	} else {
		k.warnf("VMCOREINFO has no NUMBER(PHYS_OFFSET): phys_base of the dump is not known")
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
	roots := make([]mem.PhysAddr, len(offsets))
	for i, voffset := range offsets {
		roots[i] = mem.PhysAddr(uint64(symbol) - voffset)
	}
	i := k.choose(symbol, roots, func(root mem.PhysAddr) *paging { return k.armPaging(root, bits) })
	if i < 0 {
		i = 0
	}
	k.image = imageMap{start: symbol - armImageSpan, end: symbol + armImageSpan, delta: -offsets[i]}
}

// armVABits returns how many address bits the kernel's page tables translate.
// NUMBER(VA_BITS) is what the kernel was built for; a kernel for 52 bits runs
// with 48 where the processor has no LPA2, which only TCR_EL1_T1SZ tells (since
// 5.11, bbdbc11804ff).
func (k *Kernel) armVABits() (uint, bool) {
	if t1sz, ok := k.cfg.Info.Number("TCR_EL1_T1SZ"); ok {
		bits := 64 - uint(t1sz&armT1SZMask)
		if bits >= armMinVABits && bits <= armLPA2Bits {
			return bits, true
		}
		k.warnf("NUMBER(TCR_EL1_T1SZ)=%#x makes no sense, using NUMBER(VA_BITS)", t1sz)
	}
	bits, ok := k.cfg.Info.Number("VA_BITS")
	if !ok || bits < armMinVABits || bits > armLPA2Bits {
		k.warnf("VMCOREINFO has no usable NUMBER(TCR_EL1_T1SZ) or NUMBER(VA_BITS): addresses cannot be translated")
		return 0, false
	}
	return uint(bits), true
}

// armImageOffsets returns what kimage_voffset, the distance of the kernel image's
// virtual from its physical address, may be, the likeliest first.
func (k *Kernel) armImageOffsets() []uint64 {
	var offsets []uint64
	if n, ok := k.cfg.Info.Number("kimage_voffset"); ok {
		offsets = append(offsets, uint64(n)) //nolint:gosec // a bit pattern, subtracted modulo 2^64
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

// armPaging returns the page tables at root, which translate vaBits bits.
func (k *Kernel) armPaging(root mem.PhysAddr, vaBits uint) *paging {
	levels := (int(vaBits) - pageShift + tableBits - 1) / tableBits
	below := uint(pageShift + tableBits*(levels-1))
	g := &paging{
		memory: k.cfg.Memory, root: root, levels: levels, topBits: vaBits - below,
		lowest: mem.VirtAddr(^uint64(0) << vaBits),
	}
	lpa2 := vaBits == armLPA2Bits
	g.decode = func(entry uint64, level int) (entryKind, uint64) {
		out := entry & armAddrMask
		if lpa2 {
			// Without LPA2 bits 9:8 are the shareability, 3 for all of Linux.
			out = entry&armLPA2Mask | entry&armLPA2High<<armLPA2Shift
		}
		switch {
		case entry&armValid == 0:
			return entryAbsent, 0
		case level == 0 && entry&armTable != 0:
			return entryPage, out
		case level > 0 && entry&armTable != 0:
			return entryTable, out
		case level > 0 && level <= armBlockLevels:
			return entryPage, out
		default: // reserved encodings
			return entryAbsent, 0
		}
	}
	return g
}
