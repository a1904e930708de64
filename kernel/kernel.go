// Package kernel gives meaning to the memory of a crashed Linux kernel: it
// finds the kernel's page tables through VMCOREINFO, translates the kernel's
// virtual addresses, and reads what lies there. Its subpackages build on that:
// kernel/pages sorts the page frames by what they hold, kernel/printk reads the
// log.
//
// What is known of a kernel comes from its VMCOREINFO note alone
// (Documentation/admin-guide/kdump/vmcoreinfo.rst in the kernel tree); no symbol
// file is needed. x86_64 is read with 4 and 5 levels of page tables, with KASLR
// and with memory encryption (sme_mask), arm64 with pages of 4 KiB and 39, 48
// and 52 bits of address (the last with LPA2's wider output addresses). Other
// machines and page sizes, and big-endian memory, are not supported: New
// answers with a Kernel that has warnings and translates nothing, so that a dump
// can still be taken whole.
//
// The memory read is hostile input: no value in it decides an allocation or the
// number of steps taken, and a page table that loops ends after as many levels
// as the architecture has. The package knows no dump format; memory comes
// through PhysReader. A Kernel is safe for concurrent use if its PhysReader is.
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
	// ReadPhys fills p with the bytes at physical address a and behind it. It
	// fills all of p or returns an error; p may cross page frames.
	ReadPhys(p []byte, a mem.PhysAddr) error
}

// VMCoreInfo answers what the kernel said of itself in its VMCOREINFO note. Each
// method reports whether the key is there; an unreadable value counts as absent.
type VMCoreInfo interface {
	Symbol(name string) (uint64, bool) // SYMBOL(name), an address
	Size(name string) (uint64, bool)   // SIZE(name), bytes
	Offset(name string) (uint64, bool) // OFFSET(struct.member), bytes
	Length(name string) (uint64, bool) // LENGTH(name), elements of an array
	Number(name string) (int64, bool)  // NUMBER(name); unsigned values as their bit pattern
	String(key string) (string, bool)  // any other KEY=value
}

// Segment is a piece of the kernel's address space and its place in memory, as a PT_LOAD of the
// dump has it.
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
	// TextSegments are where the dump file says that parts of the kernel lie.
	// They are used where VMCOREINFO does not tell phys_base, and where page
	// tables cannot be read. May be empty.
	TextSegments []Segment
}

// Errors of translation. Both come inside a *FaultError, which names the address.
var (
	// ErrNotMapped says that the kernel's page tables map nothing at an address.
	ErrNotMapped = errors.New("address not mapped")
	// ErrNoPageTables says that no page tables could be found in this dump, so
	// that no address can be translated.
	ErrNoPageTables = errors.New("kernel page tables not known")
)

// Page sizes, as binary logarithms: what a dump that does not tell has, and what any
// machine with Linux has.
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

// imageMap is the linear mapping of the kernel image, which holds without page
// tables: a virtual address in [start, end) lies at it plus delta.
type imageMap struct {
	start, end mem.VirtAddr
	delta      uint64
}

// New prepares the kernel that cfg describes. A dump of a kernel that is not
// understood gives no error but a Kernel with warnings whose translations fail;
// errors are for a Config that lacks Memory or Info.
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

// takePageSize takes the page size from the dump. It reports false, after a warning, for one
// that no machine has, and where dump file and kernel disagree: frame numbers count pages of
// the file then, and what the kernel says counts others.
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

func (k *Kernel) warnf(format string, args ...any) {
	k.warnings = append(k.warnings, fmt.Sprintf(format, args...))
}

// Warnings returns what New could not determine, one sentence each, naming the
// VMCOREINFO key at fault and the consequence.
func (k *Kernel) Warnings() []string { return slices.Clone(k.warnings) }

// Info returns the VMCOREINFO that the Kernel was made with.
func (k *Kernel) Info() VMCoreInfo { return k.cfg.Info }

// Machine returns the machine that the kernel ran on.
func (k *Kernel) Machine() elf.Machine { return k.cfg.Machine }

// PageShift returns the binary logarithm of the dump's page size, that of 4 KiB for a
// size that no machine has.
func (k *Kernel) PageShift() uint { return k.shift }

// Supported reports whether the kernel's addresses can be translated at all.
func (k *Kernel) Supported() bool { return k.paging != nil }

// Verified reports whether the page tables map themselves to where they were found. If they do not,
// addresses are translated as well as possible. That is good enough to look for the log, and not
// good enough to leave pages out.
func (k *Kernel) Verified() bool { return k.paging != nil && k.verified }

// PhysBase returns the value for phys_base of a kdump sub header. On x86_64 this is the kernel's
// phys_base (modulo 2^64: it can be negative). On arm64 it is the physical address where its RAM
// starts. If an arm64 kernel runs with fewer address bits than it is built for, the distance
// between the two starts of the linear map is subtracted, which makes the value negative
// (memstart_addr, arch/arm64/mm/init.c). It reports false when unknown.
func (k *Kernel) PhysBase() (uint64, bool) { return k.physBase, k.hasBase }
