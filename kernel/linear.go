package kernel

import (
	"debug/elf"

	"github.com/corehaul/corehaul/mem"
)

// readImage is ReadVirt for an address in the kernel image. It also works on machines whose page tables are not
// supported, if their image is mapped linearly. Nothing in the dump confirms such a mapping, so the caller has to
// check what it read.
func (k *Kernel) readImage(p []byte, va mem.VirtAddr) error {
	err := k.ReadVirt(p, va)
	if err == nil {
		return nil
	}
	if pa, ok := k.linearImage(va); ok {
		return k.cfg.Memory.ReadPhys(p, pa)
	}
	return err
}

// linearImage translates an address of the kernel's image.
func (k *Kernel) linearImage(va mem.VirtAddr) (mem.PhysAddr, bool) {
	a := uint64(va)
	switch k.cfg.Machine {
	case elf.EM_PPC64:
		// KERNELBASE and PAGE_OFFSET, arch/powerpc/include/asm/page.h; RAM begins at 0.
		return mem.PhysAddr(a &^ (0xf << 60)), a>>60 == 0xc
	case elf.EM_S390:
		// Identity mapping, up to 6.9; the image has a mapping of its own since.
		return mem.PhysAddr(a), true
	case elf.EM_LOONGARCH:
		// CACHE_BASE, arch/loongarch/include/asm/addrspace.h.
		return mem.PhysAddr(a & (1<<48 - 1)), a>>48 == 0x9000
	case elf.EM_RISCV:
		// kernel_map.va_kernel_pa_offset, arch/riscv/kernel/crash_core.c since 2023.
		offset, ok := k.numberBits("va_kernel_pa_offset")
		return mem.PhysAddr(a - offset), ok
	}
	return 0, false
}
