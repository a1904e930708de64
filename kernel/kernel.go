// Package kernel gives meaning to the memory of a crashed Linux kernel: it
// translates the kernel's virtual addresses and reads what lies there.
package kernel

import (
	"debug/elf"
	"encoding/binary"
	"errors"

	"github.com/corehaul/corehaul/mem"
)

// PhysReader reads physical memory of the system kernel.
type PhysReader interface {
	ReadPhys(p []byte, a mem.PhysAddr) error
}

// VMCoreInfo answers what the kernel said of itself in its VMCOREINFO note.
type VMCoreInfo interface {
	Symbol(name string) (uint64, bool)
	Size(name string) (uint64, bool)
	Offset(name string) (uint64, bool)
	Length(name string) (uint64, bool)
	Number(name string) (int64, bool)
	String(key string) (string, bool)
}

// Segment is a piece of kernel address space and where it lies in memory.
type Segment struct {
	Vaddr mem.VirtAddr
	Paddr mem.PhysAddr
	Size  uint64
}

// Config describes a dump to New.
type Config struct {
	Memory       PhysReader
	Info         VMCoreInfo
	Machine      elf.Machine
	ByteOrder    binary.ByteOrder
	PageSize     int
	MaxPFN       mem.PFN
	TextSegments []Segment
}

// ErrNotMapped says that the kernel's page tables map nothing at an address.
var ErrNotMapped = errors.New("address not mapped")

// Kernel is the memory of one crashed kernel. Safe for concurrent use.
type Kernel struct {
	cfg      Config
	warnings []string
}

// Utsname is the kernel's idea of its own name, as uname(2) gives it.
type Utsname struct {
	Sysname, Nodename, Release, Version, Machine, Domainname string
}

// New prepares the kernel that cfg describes.
func New(cfg Config) (*Kernel, error) { return &Kernel{cfg: cfg}, nil }

// Warnings returns what could not be determined.
func (k *Kernel) Warnings() []string { return k.warnings }

// Translate returns the physical address of a virtual one.
func (k *Kernel) Translate(mem.VirtAddr) (mem.PhysAddr, error) { return 0, ErrNotMapped }

// ReadVirt fills p from virtual address va.
func (k *Kernel) ReadVirt([]byte, mem.VirtAddr) error { return ErrNotMapped }

// Utsname reads init_uts_ns.
func (k *Kernel) Utsname() (Utsname, error) { return Utsname{}, ErrNotMapped }

// PhysBase returns phys_base as the kdump sub header wants it.
func (k *Kernel) PhysBase() (uint64, bool) { return 0, false }
