package dumpdir

import (
	"time"

	"github.com/corehaul/corehaul/mem"
)

// Limits of a plan. They bound what a hostile peer can make a receiver keep.
const (
	MaxPFN       = mem.PFN(1) << 40 // page frames of one machine: 4 PiB of 4 KiB pages
	MaxNotesLen  = 16 << 20         // raw PT_NOTE bytes; 8192 CPUs need about 3 MiB
	MaxRAMRanges = 1 << 16
	minPageShift = 12
	maxPageShift = 16
)

// Utsname is the system kernel's init_uts_ns, each field at most 64 bytes.
type Utsname struct {
	Sysname, Nodename, Release, Version, Machine, Domainname string
}

// Facts is what the front of a vmcore says of the machine.
type Facts struct {
	Utsname    Utsname
	Time       time.Time // of the crash
	PageSize   int       // 4096, 16384 or 65536
	MaxPFN     mem.PFN   // one past the last page frame
	NrCPUs     uint32
	CurrentCPU uint32
	PhysBase   uint64
	DumpLevel  uint8
	Codecs     uint32      // PageSnappy, PageZstd...: which compressor the file's status names
	Notes      []byte      // raw PT_NOTE bytes, as /proc/vmcore has them
	RAM        []mem.Range // sorted, disjoint: the 1st bitmap
}

// PlanEnd is what a sender says of its plan once all runs are through.
type PlanEnd struct {
	Hash   uint64 // the sender's hash of the plan, as the protocol defines it; compared, never interpreted
	Chunks uint64 // chunk numbers are below this
	Pages  uint64 // pages in all runs together
	// Classes counts the machine's pages by kind (kernel, free, user...). For the manifest only.
	Classes map[string]uint64
}

// PlanInfo is a stored plan.
type PlanInfo struct {
	PlanEnd
	PageSize  int
	MaxPFN    mem.PFN
	DumpLevel uint8
	Runs      uint64 // merged runs
	// DataOffset is where page data begins in vmcore, in bytes; the shared zero page comes first.
	DataOffset int64
}
