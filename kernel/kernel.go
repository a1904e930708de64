// Package kernel reads the memory of a crashed Linux kernel: it finds the kernel's page tables through VMCOREINFO,
// translates virtual addresses, and reads memory at them. kernel/pages classifies the page frames, kernel/printk
// reads the log.
//
// All facts about a kernel come from its VMCOREINFO note (Documentation/admin-guide/kdump/vmcoreinfo.rst in the
// kernel tree), without symbol files. Supported are x86_64 with 4 and 5 levels of page tables, KASLR and memory
// encryption (sme_mask), and arm64 with pages of 4, 16 and 64 KiB and 36 to 52 bits of address. For other machines
// and big-endian memory, New returns a Kernel with warnings that translates nothing, so that a dump can have all
// pages.
//
// Memory is hostile input: no value in it decides an allocation or a number of steps. A page table that loops ends
// after the levels of the architecture. The package knows no dump format: memory comes through PhysReader. A Kernel
// is safe for concurrent use if its PhysReader is.
package kernel

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"

	"github.com/corehaul/corehaul/mem"
)

// PhysReader reads physical memory of the system kernel.
type PhysReader interface {
	// ReadPhys fills p with the bytes from physical address a on, or returns an error. p may cross page frames.
	ReadPhys(p []byte, a mem.PhysAddr) error
}

// VMCoreInfo is the kernel's VMCOREINFO note. Each method reports whether the key exists. A value that cannot be
// parsed counts as absent.
type VMCoreInfo interface {
	Symbol(name string) (uint64, bool) // SYMBOL(name), an address
	Size(name string) (uint64, bool)   // SIZE(name), bytes
	Offset(name string) (uint64, bool) // OFFSET(struct.member), bytes
	Length(name string) (uint64, bool) // LENGTH(name), elements of an array
	Number(name string) (int64, bool)  // NUMBER(name); unsigned values as their bit pattern
	String(key string) (string, bool)  // any other KEY=value
}

// Segment is a part of the kernel's address space and its place in memory, from a PT_LOAD of the dump.
type Segment struct {
	Vaddr mem.VirtAddr
	Paddr mem.PhysAddr
	Size  uint64 // bytes
}

// Config describes a dump to New. Memory and Info are required.
type Config struct {
	Memory    PhysReader
	Info      VMCoreInfo
	Machine   elf.Machine
	ByteOrder binary.ByteOrder // nil means little-endian
	PageSize  int              // bytes; 0 means 4096
	// TextSegments are the parts of the kernel that PT_LOADs map. They are used if VMCOREINFO lacks phys_base, and if
	// page tables cannot be read. May be empty.
	TextSegments []Segment
}

// Errors of translation. A *FaultError wraps them and names the address.
var (
	// ErrNotMapped says that the kernel's page tables map nothing at an address.
	ErrNotMapped = errors.New("address not mapped")
	// ErrNoPageTables says that the dump has no usable page tables: no address can be translated.
	ErrNoPageTables = errors.New("kernel page tables not known")
)

// Page sizes, as binary logarithms: the default, and the limits of all machines with Linux.
const (
	defaultPageShift = 12
	largestPageShift = 16
)

// Kernel is the memory of one crashed kernel. Make one with New.
type Kernel struct {
	cfg      Config
	shift    uint    // log2 of the page size
	paging   *paging // nil when the page tables are not known
	verified bool    // the page tables map themselves
	image    imageMap
	physBase uint64
	hasBase  bool
	warnings []string
}

// imageMap is the linear mapping of the kernel image, which works without page tables: virtual address va in [start,
// end) lies at va+delta.
type imageMap struct {
	start, end mem.VirtAddr
	delta      uint64
}

// New prepares the kernel that cfg describes. For an unknown kernel it returns a Kernel with warnings whose
// translations fail. It returns an error if cfg lacks Memory or Info.
func New(cfg Config) (*Kernel, error) {
	if cfg.Memory == nil || cfg.Info == nil {
		return nil, errors.New("kernel: no memory or no VMCOREINFO given")
	}
	k := &Kernel{cfg: cfg, shift: defaultPageShift}
	if !k.takePageSize() {
		return k, nil
	}
	if cfg.ByteOrder != nil && cfg.ByteOrder != binary.ByteOrder(binary.LittleEndian) {
		k.warnf("big-endian memory is not supported: addresses cannot be translated")
		return k, nil
	}
	switch cfg.Machine {
	case elf.EM_X86_64:
		k.setupX86()
	case elf.EM_AARCH64:
		k.setupARM64()
	default:
		k.warnf("machine %v is not supported: addresses cannot be translated", cfg.Machine)
	}
	return k, nil
}

// takePageSize takes the page size from the dump. It warns and reports false for an impossible size, and if dump file
// and kernel disagree: then their frame numbers differ.
func (k *Kernel) takePageSize() bool {
	size := k.cfg.PageSize
	if size == 0 {
		size = 1 << defaultPageShift
	}
	shift := bits.TrailingZeros64(uint64(size))
	if shift < defaultPageShift || shift > largestPageShift || size != 1<<shift {
		k.warnf("page size %d is not supported: addresses cannot be translated", size)
		return false
	}
	k.shift = uint(shift)
	if text, ok := k.cfg.Info.String("PAGESIZE"); ok && text != strconv.Itoa(size) {
		k.warnf("VMCOREINFO has PAGESIZE=%s, the dump file has pages of %d bytes: addresses cannot be translated", text, size)
		return false
	}
	return true
}

// numberBits returns NUMBER(name) as the bits of an address or a mask.
func (k *Kernel) numberBits(name string) (uint64, bool) {
	n, ok := k.cfg.Info.Number(name)
	return uint64(n), ok //nolint:gosec // the same bits
}

func (k *Kernel) warnf(format string, args ...any) {
	k.warnings = append(k.warnings, fmt.Sprintf(format, args...))
}

// Warnings returns what New could not determine: one sentence each, with the VMCOREINFO key and the consequence.
func (k *Kernel) Warnings() []string { return slices.Clone(k.warnings) }

// Info returns the kernel's VMCOREINFO.
func (k *Kernel) Info() VMCoreInfo { return k.cfg.Info }

// Machine returns the machine that the kernel ran on.
func (k *Kernel) Machine() elf.Machine { return k.cfg.Machine }

// PageShift returns the binary logarithm of the dump's page size; that of 4 KiB for an impossible size.
func (k *Kernel) PageShift() uint { return k.shift }

// Supported reports whether the kernel's addresses can be translated at all.
func (k *Kernel) Supported() bool { return k.paging != nil }

// Verified reports whether the page tables map themselves to where they were found. If not, translations may be
// wrong: good enough to look for the log, but not to exclude pages.
func (k *Kernel) Verified() bool { return k.paging != nil && k.verified }

// PhysBase returns the value for phys_base of a kdump sub header. On x86_64 this is the kernel's
// phys_base (modulo 2^64: it can be negative). On arm64 it is the physical address where its RAM
// starts. If an arm64 kernel runs with fewer address bits than it is built for, the distance
// between the two starts of the linear map is subtracted, which makes the value negative
// (memstart_addr, arch/arm64/mm/init.c). It reports false when unknown.
func (k *Kernel) PhysBase() (uint64, bool) { return k.physBase, k.hasBase }
