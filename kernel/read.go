package kernel

import (
	"encoding/binary"

	"github.com/corehaul/corehaul/mem"
)

// Mapping is a piece of kernel address space that is contiguous in memory.
type Mapping struct {
	Phys mem.PhysAddr
	Size uint64 // bytes from the requested address to the end of the mapping, at least 1
}

// Lookup returns the place of virtual address va in memory, and the bytes up to the end of its page or block (of 2
// MiB to 1 GiB). Errors are *FaultError.
func (k *Kernel) Lookup(va mem.VirtAddr) (Mapping, error) {
	if k.paging == nil {
		if m, ok := k.linear(va); ok {
			return m, nil
		}
		return Mapping{}, &FaultError{Addr: va, Level: -1, Err: ErrNoPageTables}
	}
	m, err := k.paging.walk(va)
	if isReadFault(err) {
		// A partial dump may lack the page tables and yet have the page.
		if m, ok := k.linear(va); ok {
			return m, nil
		}
	}
	return m, err
}

// linear finds va in the mappings that work without page tables.
func (k *Kernel) linear(va mem.VirtAddr) (Mapping, bool) {
	for _, s := range k.cfg.TextSegments {
		if va >= s.Vaddr && uint64(va-s.Vaddr) < s.Size {
			offset := uint64(va - s.Vaddr)
			return Mapping{Phys: s.Paddr + mem.PhysAddr(offset), Size: s.Size - offset}, true
		}
	}
	if k.image.start <= va && va < k.image.end {
		return Mapping{Phys: mem.PhysAddr(uint64(va) + k.image.delta), Size: uint64(k.image.end - va)}, true
	}
	return Mapping{}, false
}

// ReadVirt fills p from virtual address va on. Errors are *FaultError with the address of the part that could not be
// read. Then the contents of p are undefined.
func (k *Kernel) ReadVirt(p []byte, va mem.VirtAddr) error {
	for len(p) > 0 {
		m, err := k.Lookup(va)
		if err != nil {
			return err
		}
		n := uint64(len(p))
		if m.Size < n {
			n = m.Size
		}
		if err := k.cfg.Memory.ReadPhys(p[:n], m.Phys); err != nil {
			return &FaultError{Addr: va, Level: -1, Err: err}
		}
		p = p[n:]
		va += mem.VirtAddr(n)
	}
	return nil
}

// ReadUint64 reads a long, or a pointer, of the kernel.
func (k *Kernel) ReadUint64(va mem.VirtAddr) (uint64, error) {
	var b [8]byte
	err := k.ReadVirt(b[:], va)
	return binary.LittleEndian.Uint64(b[:]), err
}

// ReadUint32 reads an int of the kernel.
func (k *Kernel) ReadUint32(va mem.VirtAddr) (uint32, error) {
	var b [4]byte
	err := k.ReadVirt(b[:], va)
	return binary.LittleEndian.Uint32(b[:]), err
}
