// Package pages sorts the page frames of a crashed kernel by what they hold, so
// that a dump can leave out the ones nobody needs.
//
// What a frame holds is read from its struct page, found through the kernel's
// mem_section table (SPARSEMEM, with and without EXTREME and VMEMMAP); offsets
// and flag numbers come from VMCOREINFO alone. The meaning of the dump levels 0 to
// 31 is makedumpfile's, page for page: the frames that Walk does not mark as
// excluded are the ones that makedumpfile 1.7.6 stores (its tests, their order
// and how far each reaches: __exclude_unnecessary_pages and its helpers in
// makedumpfile.c of release 1.7.6). Where it differs:
//
//   - on kernels since 6.11, of which 1.7.6 takes every free and offline page for
//     slab and keeps it: here they are told as makedumpfile 1.7.8 does;
//   - what makes makedumpfile fail, or what it would guess, only makes this package
//     keep more: a missing or absurd VMCOREINFO key switches off the tests that
//     need it, a struct page that cannot be read keeps its frames, and a warning
//     says so;
//   - RAM that has no struct pages is kept, and a warning says so. makedumpfile drops what
//     lies behind the last section that has some, because the kernel was told not to use it
//     (mem= on its command line). A memory model that is read wrongly looks the same.
//
// One rule may surprise: hwpoison and logically offline frames are left out at every
// level, but of a kernel that cannot mark poisoned pages (without
// CONFIG_MEMORY_FAILURE, and so without NUMBER(PG_hwpoison)) makedumpfile does not
// look for either at the levels 0 and 1, and so offline frames are kept there.
//
// Level bit 1 (zero pages) is about contents, which are not read here.
//
// Memory is treated as hostile: what it says decides which frames are excluded,
// but no allocation and no number of steps. A Classifier needs a few hundred KiB,
// and up to a few MiB where the memory map itself is scattered; it does not grow
// with the machine. It is safe for concurrent use if the Kernel's reader is.
package pages

import (
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// DumpLevel is makedumpfile's dump level: the sum of the kinds of page to leave
// out, 0 to 31.
type DumpLevel uint8

// The bits of a DumpLevel.
const (
	LevelZero         DumpLevel = 1  // pages of zeros (a matter of contents: not of this package)
	LevelCache        DumpLevel = 2  // page cache without private data
	LevelCachePrivate DumpLevel = 4  // all page cache; includes LevelCache
	LevelUser         DumpLevel = 8  // memory of processes, and hugetlb pages
	LevelFree         DumpLevel = 16 // free pages
	MaxLevel          DumpLevel = 31 // all of these
)

// Class is what a page frame holds.
type Class uint8

// The classes. Kernel and Memmap are never excluded; HWPoison and Offline are at
// every level (but see the package comment); the others where the level says so.
const (
	// Kernel is all that is nothing else: kernel image, slab, stacks, page tables.
	Kernel Class = iota
	// Memmap is kernel memory that holds struct pages.
	Memmap
	// Cache is page cache without private data.
	Cache
	// CachePrivate is page cache with private data, such as a file system's buffers.
	CachePrivate
	// User is anonymous memory of processes and hugetlb pages.
	User
	// Free is memory that the page allocator had to give.
	Free
	// HWPoison is memory with hardware errors. Reading it can stop the machine.
	HWPoison
	// Offline is memory that the kernel does not use: ballooned or hot-unplugged.
	Offline

	// NumClasses is the number of classes.
	NumClasses = int(Offline) + 1
)

var classNames = [NumClasses]string{"kernel", "memmap", "cache", "cache_private", "user", "free", "hwpoison", "offline"}

// String returns the name of c in lower case, words joined by underscores.
func (c Class) String() string {
	if int(c) >= NumClasses {
		return fmt.Sprintf("class(%d)", uint8(c))
	}
	return classNames[c]
}

// ExcludedAt reports whether level, as a rule, leaves frames of class c out. What
// holds for a frame is Run.Excluded: the classes say what level 31 makes of a
// frame, and a lower level can have another reason to exclude it, or none.
func (c Class) ExcludedAt(level DumpLevel) bool {
	switch c {
	case Cache:
		return level&(LevelCache|LevelCachePrivate) != 0
	case CachePrivate:
		return level&LevelCachePrivate != 0
	case User:
		return level&LevelUser != 0
	case Free:
		return level&LevelFree != 0
	case HWPoison, Offline:
		return true
	default:
		return false
	}
}

// Run is a run of page frames of one class.
type Run struct {
	mem.Extent
	Class    Class
	Excluded bool // left out at the level asked for
}
