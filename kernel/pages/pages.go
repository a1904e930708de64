// Package pages classifies the page frames of a crashed kernel, so that a dump can exclude frames by a dump level.
//
// The class comes from the frame's struct page, which is found through the kernel's mem_section table (SPARSEMEM,
// with and without EXTREME and VMEMMAP). Offsets and flag numbers come from VMCOREINFO alone. The dump levels 0 to 31
// mean the same as in makedumpfile, page for page: the frames that Walk does not exclude are those that makedumpfile
// 1.7.6 stores (__exclude_unnecessary_pages and its helpers in makedumpfile.c). There are these differences:
//
//   - On kernels since 6.11, makedumpfile 1.7.6 takes free and offline pages for slab and keeps them. This package
//     follows makedumpfile 1.7.8.
//   - If makedumpfile would fail or guess, this package keeps more: a missing or invalid VMCOREINFO key switches
//     off the tests that need it, and frames are kept if their struct page cannot be read. A warning says so.
//   - RAM without struct pages is kept, with a warning. makedumpfile drops RAM behind the last section with struct
//     pages, because mem= hid it from the kernel. A memory model that is read wrongly looks the same.
//
// hwpoison and logically offline frames are excluded at every level, with one exception, as in makedumpfile: for a
// kernel that cannot mark poisoned pages (without CONFIG_MEMORY_FAILURE, so without NUMBER(PG_hwpoison)), the levels
// 0 and 1 keep offline frames.
//
// Level bit 1 (zero pages) needs page contents, which this package does not read.
//
// Memory is hostile input: it decides which frames are excluded, but no allocation and no number of steps. A
// Classifier needs a few hundred KiB, or a few MiB if the memory map is scattered, whatever the size of the machine.
// It is safe for concurrent use if the Kernel's reader is.
package pages

import (
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// DumpLevel is makedumpfile's dump level: the sum of the kinds of pages to exclude, 0 to 31.
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

// The classes. Kernel and Memmap are never excluded, HWPoison and Offline at every level (see the package comment for
// the exception), the others by the level.
const (
	// Kernel is everything else: kernel image, slab, stacks, page tables.
	Kernel Class = iota
	// Memmap is kernel memory that holds struct pages.
	Memmap
	// Cache is page cache without private data.
	Cache
	// CachePrivate is page cache with private data, such as a file system's buffers.
	CachePrivate
	// User is anonymous memory of processes and hugetlb pages.
	User
	// Free is free memory of the page allocator.
	Free
	// HWPoison is memory with hardware errors. Reading it can stop the machine.
	HWPoison
	// Offline is memory that the kernel does not use: ballooned or hot-unplugged.
	Offline

	// NumClasses is the number of classes.
	NumClasses = int(Offline) + 1
)

var classNames = [NumClasses]string{"kernel", "memmap", "cache", "cache_private", "user", "free", "hwpoison", "offline"}

// String returns the name of c in lower case with underscores.
func (c Class) String() string {
	if int(c) >= NumClasses {
		return fmt.Sprintf("class(%d)", uint8(c))
	}
	return classNames[c]
}

// ExcludedAt reports whether level usually excludes frames of class c. Run.Excluded is exact: the class is that of
// level 31, and a lower level may exclude a frame for another reason, or not at all.
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
	Excluded bool // excluded at the level of the walk
}
