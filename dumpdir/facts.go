package dumpdir

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Limits of a plan. They bound the memory and disk that a hostile peer can use.
const (
	MaxPFN       = mem.PFN(1) << 40 // page frames of one machine: 4 PiB of 4 KiB pages
	MaxNotesLen  = 16 << 20         // raw PT_NOTE bytes; vmcore.MaxNotes is half of it, but stored dumps have more
	MaxRAMRanges = 1 << 16
	maxDumpLevel = 31
)

// Facts is what the front of vmcore says about the machine.
type Facts struct {
	Utsname    uts.Name  // each field at most 64 bytes
	Time       time.Time // of the crash
	PageSize   int       // 4096, 16384 or 65536
	MaxPFN     mem.PFN   // one past the last page frame
	NrCPUs     uint32
	CurrentCPU uint32
	PhysBase   uint64
	DumpLevel  uint8
	BigEndian  bool // byte order of the machine
	// ExcludedVmemmap: struct pages of excluded pages were excluded, too (DUMP_DH_EXCLUDED_VMEMMAP in status).
	ExcludedVmemmap bool
	Codecs          uint32      // compressor for the file's status: PageSnappy, PageZstd...
	Notes           []byte      // raw PT_NOTE bytes, as /proc/vmcore has them
	RAM             []mem.Range // sorted, disjoint: the 1st bitmap

	// eraseinfo: the sub header names the ERASEINFO note of Notes. The journal stores this, because the sub header of
	// older dumps does not.
	eraseinfo bool
}

// check checks the limits of the facts. Notes and RAM follow the facts in the journal, so checkLists checks them.
func (f *Facts) check() error {
	switch {
	case f.PageSize != 4096 && f.PageSize != 16384 && f.PageSize != 65536:
		return fmt.Errorf("%w: page size %d", ErrBadPlan, f.PageSize)
	case f.MaxPFN == 0 || f.MaxPFN > MaxPFN:
		return fmt.Errorf("%w: max_mapnr %d", ErrBadPlan, f.MaxPFN)
	case f.DumpLevel > maxDumpLevel:
		return fmt.Errorf("%w: dump level %d", ErrBadPlan, f.DumpLevel)
	case f.NrCPUs > math.MaxInt32 || f.CurrentCPU > math.MaxInt32:
		return fmt.Errorf("%w: %d CPUs, current %d", ErrBadPlan, f.NrCPUs, f.CurrentCPU)
	case f.Codecs&^allCodecs != 0:
		return fmt.Errorf("%w: compressor bits %#x", ErrBadPlan, f.Codecs)
	}
	for _, s := range f.Utsname.Fields() {
		if len(*s) > uts.MaxLen {
			return fmt.Errorf("%w: utsname field of %d bytes", ErrBadPlan, len(*s))
		}
	}
	return nil
}

// checkLists checks limits and order of notes and RAM ranges.
func (f *Facts) checkLists() error {
	if len(f.Notes) > MaxNotesLen || len(f.RAM) > MaxRAMRanges {
		return fmt.Errorf("%w: %d bytes of notes, %d RAM ranges", ErrBadPlan, len(f.Notes), len(f.RAM))
	}
	var last mem.PhysAddr
	for _, r := range f.RAM {
		if r.Start < last || r.Len() == 0 {
			return fmt.Errorf("%w: RAM range %v out of order or empty", ErrBadPlan, r)
		}
		last = r.End
	}
	return nil
}

// checkAll also makes the checks of the writer of vmcore.
func (f *Facts) checkAll() error {
	if err := f.check(); err != nil {
		return err
	}
	if err := f.checkLists(); err != nil {
		return err
	}
	if _, err := f.header().Layout(0); err != nil {
		return fmt.Errorf("%w: %w", ErrBadPlan, err)
	}
	return nil
}

// header returns the headers of vmcore.
func (f *Facts) header() *kdumpfile.Header {
	h := &kdumpfile.Header{
		Utsname:    f.Utsname,
		Time:       f.Time,
		PageSize:   f.PageSize,
		MaxPFN:     f.MaxPFN,
		NrCPUs:     int(f.NrCPUs),
		CurrentCPU: int(f.CurrentCPU),
		PhysBase:   f.PhysBase,
		DumpLevel:  int(f.DumpLevel),
		Notes:      f.Notes,
		Status:     f.Codecs,
		RAM:        f.RAM,
		Eraseinfo:  f.eraseinfo,
	}
	if f.ExcludedVmemmap {
		h.Status |= kdumpfile.StatusExcludedVmemmap
	}
	h.ByteOrder = f.order()
	return h
}

// descOrder is binary.ByteOrder and binary.AppendByteOrder.
type descOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func (f *Facts) order() descOrder {
	if f.BigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}
