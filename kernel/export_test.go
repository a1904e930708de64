package kernel

import "github.com/corehaul/corehaul/mem"

// Translate returns the physical address of virtual address va.
func (k *Kernel) Translate(va mem.VirtAddr) (mem.PhysAddr, error) {
	m, err := k.Lookup(va)
	return m.Phys, err
}
