// Package vmcore has what all dump files of a Linux kernel share: physical memory by address and by page, the notes,
// and a few facts about the machine.
//
// The packages below it read the formats: elfcore (/proc/vmcore, /proc/kcore, ELF cores of QEMU and makedumpfile),
// kdumpfile (kdump-compressed, reader and writer) and flattened (makedumpfile -F). dumpfile opens any of them. This
// package has their common interfaces, errors and note parser. It knows no kernel structure.
//
// Everything that parses bytes here is safe for hostile input: sizes are checked before they decide an allocation or
// a loop, and no input causes a panic.
package vmcore

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"iter"
	"time"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore/vmcoreinfo"
)

// Reader reads physical memory of the crashed machine. Implementations are safe
// for concurrent use.
type Reader interface {
	// ReadPhys fills p from physical address a on, or returns an error; then the contents of p are undefined. Errors
	// name the address. An error about the dump matches ErrExcluded, ErrNotPresent, ErrIncomplete, ErrCorrupt or
	// ErrTruncated; others are about the medium.
	ReadPhys(p []byte, a mem.PhysAddr) error
}

// Image is an open dump file. Implementations are safe for concurrent use, except Close.
type Image interface {
	Reader

	// Info returns the facts of the dump. Callers must not change it.
	Info() *Info

	// RAM returns the physical ranges that were RAM of the system kernel, sorted and disjoint; touching ranges may be
	// separate. Ranges of an ELF core need not be page aligned. Those of a kdump-compressed file (runs of the 1st
	// bitmap) are whole pages. Callers must not change it.
	RAM() []mem.Range

	// Pages yields the runs of page frames with contents in the file, ascending and disjoint; touching runs may be
	// separate. In an ELF core these are the frames of which a PT_LOAD has a byte in the file, in a kdump-compressed
	// file the set bits of the 2nd bitmap. Pages that an incomplete file lacks are included (see Holder). If the file
	// cannot be read, the error comes last, with an empty extent.
	Pages() iter.Seq2[mem.Extent, error]

	// ReadPage fills p, of Info().PageSize bytes, with page frame pfn. Bytes of the page that are in no PT_LOAD read
	// as zero, as in makedumpfile. Errors are those of ReadPhys.
	ReadPage(p []byte, pfn mem.PFN) error

	// Close releases the file. No other method may run or be called after it.
	Close() error
}

// PageRun is an optional power of an Image: reading many consecutive pages at
// once is quicker for it than page by page.
type PageRun interface {
	// ReadPages fills p, whose length must be a multiple of the page size, with
	// the pages from pfn on, as ReadPage would one by one.
	ReadPages(p []byte, pfn mem.PFN) error
}

// Format names, the values of Info.Format and Info.Inner.
const (
	FormatELF       = "elf"
	FormatKdump     = "kdump-compressed"
	FormatFlattened = "flattened"
)

// Info is what a dump file says of itself and of the machine. Fields that the
// format does not have are zero.
type Info struct {
	Format    string           // one of the Format constants
	Inner     string           // format inside a flattened file; otherwise Format
	Machine   elf.Machine      // from the ELF header or utsname.machine, else from the notes; EM_NONE when unknown
	ByteOrder binary.ByteOrder // of the crashed machine
	PageSize  int              // bytes; 4096, 16384 or 65536 where the machine has such a choice
	MaxPFN    mem.PFN          // one past the last page: makedumpfile's max_mapnr for this image

	// Notes are ELF notes as /proc/vmcore has them, PT_NOTEs one after the other. What a
	// kdump-compressed file keeps beside its notes, VMCOREINFO and ERASEINFO, stands
	// before them as notes as well, so that it goes wherever the notes go.
	Notes      []byte
	VMCOREINFO *vmcoreinfo.Info // never nil; empty when the notes have none
	CPUs       []CPU            // one per NT_PRSTATUS note, in file order
	Eraseinfo  []byte           // makedumpfile's list of erased data, as text; empty if there is none

	Segments []Segment // PT_LOADs in file order, ELF only

	Utsname    uts.Name  // kdump-compressed only
	Timestamp  time.Time // kdump-compressed only: when the dump was written
	DumpLevel  int       // kdump-compressed: makedumpfile -d; -1 when unknown
	Incomplete bool      // the file says that it is incomplete, or visibly is
	Lacks      []string  // why it is, one line each; pages that can be named are not told of here
	PhysBase   uint64    // kdump-compressed: phys_base of the sub header
	NrCPUs     int       // kdump-compressed: nr_cpus of the main header; 0 when unknown
	CurrentCPU int       // kdump-compressed: current_cpu of the main header; -1 when unknown
	// ExcludedVmemmap: kdump-compressed; the struct pages that excluded pages alone have
	// were left out too (makedumpfile -e, DUMP_DH_EXCLUDED_VMEMMAP).
	ExcludedVmemmap bool

	Warnings []string // oddities that were passed over, one line each
}

// PageShift returns the base-2 logarithm of the page size.
func (i *Info) PageShift() uint { return PageShift(i.PageSize) }

// CPU is what an NT_PRSTATUS note says of one CPU at the time of the crash.
type CPU struct {
	PID  int32  // of the task that ran; 0 for the idle task
	Regs []byte // elf_gregset_t as stored, in the machine's byte order; a part of Info.Notes
}

// Segment is a PT_LOAD of an ELF core.
type Segment struct {
	Vaddr  mem.VirtAddr
	Paddr  mem.PhysAddr
	Offset int64  // of its bytes in the file
	Filesz uint64 // bytes in the file
	Memsz  uint64 // bytes in memory; those beyond Filesz were left out of the file
}

// FileEnd returns where the bytes of s end in the file. Offset and Filesz must be at most 1<<62; if both are, it is negative.
func (s *Segment) FileEnd() int64 { return s.Offset + int64(s.Filesz) } //nolint:gosec // documented

// NoPaddr is the Paddr of PT_LOADs that have no physical address: /proc/kcore's
// vmalloc and module areas (fs/proc/kcore.c).
const NoPaddr = ^mem.PhysAddr(0)

// PageSizes are the page sizes of the machines that dumps come from, in bytes.
var PageSizes = [...]int{4096, 16384, 65536}

// MaxPageSize is the largest of PageSizes.
const MaxPageSize = 65536

// zeroPage is what zero pages are compared with: comparing stops at the first
// difference, and runs at memory speed where there is none.
var zeroPage [MaxPageSize]byte

// IsZero reports whether all bytes of p are zero. p has any length.
func IsZero(p []byte) bool {
	for ; len(p) > len(zeroPage); p = p[len(zeroPage):] {
		if !bytes.Equal(p[:len(zeroPage)], zeroPage[:]) {
			return false
		}
	}
	return bytes.Equal(p, zeroPage[:len(p)])
}

// ValidPageSize reports whether n is one of PageSizes.
func ValidPageSize(n int) bool { return n == 4096 || n == 16384 || n == 65536 }

// PageShift returns the base-2 logarithm of page size n, which must be valid.
func PageShift(n int) uint {
	switch n {
	case 16384:
		return 14
	case 65536:
		return 16
	}
	return 12
}
