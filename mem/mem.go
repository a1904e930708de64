// Package mem names places in the memory of a system kernel: page frames,
// physical and virtual addresses, and runs of them.
//
// The types exist so that a frame number cannot be passed where an address is
// meant. The package holds no data and knows no file or kernel format, which is
// why the packages that read dump files and those that read kernel memory can
// both use it without knowing each other. All types are plain values.
package mem

import "fmt"

// PFN is a page frame number: a physical address divided by the page size.
type PFN uint64

// PhysAddr is a physical address in the crashed machine, in bytes.
type PhysAddr uint64

// VirtAddr is a virtual address of the system kernel, in bytes.
type VirtAddr uint64

// Addr returns the physical address of the first byte of frame n, for pages of
// 1<<pageShift bytes. Frames beyond the 64-bit address space wrap; callers check
// frame numbers against the machine's last one first.
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

// Len returns the number of bytes in r, 0 when it is empty or reversed.
func (r Range) Len() uint64 {
	if r.End <= r.Start {
		return 0
	}
	return uint64(r.End - r.Start)
}

// Contains reports whether address a lies in r.
func (r Range) Contains(a PhysAddr) bool { return a >= r.Start && a < r.End }

// Pages returns the frames that r touches, the partly covered first and last
// ones included, for pages of 1<<pageShift bytes.
func (r Range) Pages(pageShift uint) Extent {
	if r.Len() == 0 {
		return Extent{}
	}
	first, last := r.Start.PFN(pageShift), (r.End - 1).PFN(pageShift)
	return Extent{Start: first, Count: uint64(last-first) + 1}
}

// String formats r as the kernel's resource lists do, with the last address included.
func (r Range) String() string {
	if r.Len() == 0 {
		return "empty range"
	}
	return fmt.Sprintf("%#x-%#x", uint64(r.Start), uint64(r.End)-1)
}
