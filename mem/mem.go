// Package mem has types for places in the memory of a system kernel: page frames, physical and virtual addresses, and
// runs of them.
//
// The compiler refuses a frame number in place of an address. The package knows no file format and no kernel, so
// packages for dump files and for kernel memory share it. All types are plain values.
package mem

import "fmt"

// PFN is a page frame number: a physical address divided by the page size.
type PFN uint64

// PhysAddr is a physical address in the crashed machine, in bytes.
type PhysAddr uint64

// VirtAddr is a virtual address of the system kernel, in bytes.
type VirtAddr uint64

// Addr returns the physical address of the first byte of frame n, for pages of 1<<pageShift bytes. Frames beyond the
// 64-bit address space wrap, so callers compare frame numbers with the machine's last one first.
func (n PFN) Addr(pageShift uint) PhysAddr { return PhysAddr(uint64(n) << pageShift) }

// PFN returns the frame that holds address a, for pages of 1<<pageShift bytes.
func (a PhysAddr) PFN(pageShift uint) PFN { return PFN(uint64(a) >> pageShift) }

// String formats a as crash and the kernel do, in hexadecimal.
func (a PhysAddr) String() string { return fmt.Sprintf("%#x", uint64(a)) }

// String formats v in hexadecimal without a prefix, as the kernel log does.
func (v VirtAddr) String() string { return fmt.Sprintf("%016x", uint64(v)) }

// Range is a half-open range of physical addresses, [Start, End).
type Range struct {
	Start, End PhysAddr
}

// Len returns the number of bytes in r. It is 0 if r is empty or reversed.
func (r Range) Len() uint64 {
	if r.End <= r.Start {
		return 0
	}
	return uint64(r.End - r.Start)
}

// Contains reports whether address a lies in r.
func (r Range) Contains(a PhysAddr) bool { return a >= r.Start && a < r.End }

// Pages returns the frames that r touches, also those that it covers in part, for pages of 1<<pageShift bytes.
func (r Range) Pages(pageShift uint) Extent {
	if r.Len() == 0 {
		return Extent{}
	}
	first, last := r.Start.PFN(pageShift), (r.End - 1).PFN(pageShift)
	return Extent{Start: first, Count: uint64(last-first) + 1}
}

// String formats r like the kernel's resource lists, which include the last address.
func (r Range) String() string {
	if r.Len() == 0 {
		return "empty range"
	}
	return fmt.Sprintf("%#x-%#x", uint64(r.Start), uint64(r.End)-1)
}
