package kdumpfile

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore"
)

// Signatures at offset 0.
const (
	Signature     = "KDUMP   "
	diskSignature = "DISKDUMP"
)

// Version is the header_version that is written.
const Version = 6

// Header flags in status beside the compressor bits of Codec.
const (
	StatusIncomplete      = 0x8  // DUMP_DH_COMPRESSED_INCOMPLETE
	StatusExcludedVmemmap = 0x10 // DUMP_DH_EXCLUDED_VMEMMAP
)

// StatusOffset is where the status, a 32-bit number, lies in a file, in bytes.
const StatusOffset = offStatus

// Limits of what is read and written.
const (
	// MaxPFN is beyond the last frame of any machine: 52 bits of physical
	// address, the most that x86-64 and arm64 define, in pages of 4 KiB.
	MaxPFN = 1 << 40
	// maxSubHeader bounds the sub header, which holds the notes, only against absurd values: it is not read whole.
	maxSubHeader = 1 << 40
	// maxCPUs bounds nr_cpus only against absurd values.
	maxCPUs      = 1 << 20
	maxDumpLevel = 31
	// Pages of any Linux have a size from minBlockSize to maxBlockSize (sparc64, ia64, Hexagon).
	minBlockSize = 4 << 10
	maxBlockSize = 1 << 20
)

// Lengths of the structures on a 64-bit machine.
const (
	mainHeaderLen = 464
	subHeaderLen  = 104
)

// Byte offsets in struct disk_dump_header.
const (
	offVersion      = 8
	offUtsname      = 12
	offTimestamp    = 408
	offStatus       = 424
	offBlockSize    = 428
	offSubHdrSize   = 432
	offBitmapBlocks = 436
	offMaxMapnr     = 440
	offCurrentCPU   = 456
	offNrCPUs       = 460
	// offBlockSize32 is block_size in the packing of 32-bit writers.
	offBlockSize32 = 416
)

// Byte offsets in struct kdump_sub_header, and the first header_version that has
// the field.
const (
	offPhysBase       = 0
	offDumpLevel      = 8  // 1
	offSplit          = 12 // 2
	offStartPFN       = 16 // 2
	offEndPFN         = 24 // 2
	offVmcoreinfoOff  = 32 // 3
	offVmcoreinfoSize = 40 // 3
	offNoteOff        = 48 // 4
	offNoteSize       = 56 // 4
	offEraseinfoOff   = 64 // 5
	offEraseinfoSize  = 72 // 5
	offStartPFN64     = 80 // 6
	offEndPFN64       = 88 // 6
	offMaxMapnr64     = 96 // 6
)

// Header is the headers of a file, with its notes.
type Header struct {
	Utsname    uts.Name         // strings are cut at 64 bytes
	Time       time.Time        // of the dump; microseconds
	ByteOrder  binary.ByteOrder // of the dumped machine; nil means little endian
	PageSize   int              // block_size: 4096, 16384 or 65536
	MaxPFN     mem.PFN          // max_mapnr: one past the last frame; 1 to MaxPFN
	NrCPUs     int              // number of NT_PRSTATUS notes
	CurrentCPU int              // the CPU that panicked; -1 if unknown, written as 0
	PhysBase   uint64           // bytes
	DumpLevel  int              // as in makedumpfile -d
	Notes      []byte           // raw PT_NOTE bytes
	Status     uint32           // compressor bits (Codec) that pages may use, and StatusExcludedVmemmap
	RAM        []mem.Range      // the 1st bitmap: sorted by start
	// Eraseinfo: offset_eraseinfo names the ERASEINFO note of Notes, if there is one. A front that was written
	// without it has to be written so again.
	Eraseinfo bool
}

// byteOrder is binary.ByteOrder and binary.AppendByteOrder.
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func (h *Header) order() byteOrder {
	if h.ByteOrder == binary.BigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// check refuses headers that cannot be written.
func (h *Header) check() error {
	switch {
	case !vmcore.ValidPageSize(h.PageSize):
		return fmt.Errorf("kdumpfile: page size %d is none of %v", h.PageSize, vmcore.PageSizes)
	case h.MaxPFN == 0 || h.MaxPFN > MaxPFN:
		return fmt.Errorf("kdumpfile: max_mapnr %d is not in 1 to %d", h.MaxPFN, uint64(MaxPFN))
	case h.NrCPUs < 0 || h.NrCPUs > maxCPUs || h.CurrentCPU < -1 || h.CurrentCPU > maxCPUs:
		return fmt.Errorf("kdumpfile: CPU %d of %d is out of range", h.CurrentCPU, h.NrCPUs)
	case h.DumpLevel < 0 || h.DumpLevel > maxDumpLevel:
		return fmt.Errorf("kdumpfile: dump level %d is not in 0 to %d", h.DumpLevel, maxDumpLevel)
	}
	return nil
}

// EncodeFront returns the bytes of the file up to Layout.Bitmap1: the main header block, the sub header and the
// notes, padded with zeros to whole blocks.
func (h *Header) EncodeFront(incomplete bool) ([]byte, error) {
	l, err := h.Layout(0)
	if err != nil {
		return nil, err
	}
	b := make([]byte, l.Bitmap1)
	h.encodeMain(b, l, incomplete)
	h.encodeSub(b[l.SubHeader:], l)
	copy(b[l.Notes:], h.Notes)
	return b, nil
}

//nolint:gosec // all values were checked by Layout
func (h *Header) encodeMain(b []byte, l Layout, incomplete bool) {
	o := h.order()
	copy(b, Signature)
	o.PutUint32(b[offVersion:], Version)
	for i, s := range h.Utsname.Fields() {
		copy(b[offUtsname+i*uts.FieldLen:][:uts.MaxLen], *s)
	}
	if !h.Time.IsZero() {
		o.PutUint64(b[offTimestamp:], uint64(h.Time.Unix()))
		o.PutUint64(b[offTimestamp+8:], uint64(h.Time.Nanosecond()/1000))
	}
	status := h.Status &^ StatusIncomplete
	if incomplete {
		status |= StatusIncomplete
	}
	o.PutUint32(b[offStatus:], status)
	o.PutUint32(b[offBlockSize:], uint32(h.PageSize))
	o.PutUint32(b[offSubHdrSize:], uint32((l.Bitmap1-l.SubHeader)/int64(h.PageSize)))
	o.PutUint32(b[offBitmapBlocks:], uint32(2*l.BitmapLen/int64(h.PageSize)))
	o.PutUint32(b[offMaxMapnr:], uint32(min(uint64(h.MaxPFN), 1<<32-1)))
	o.PutUint32(b[offCurrentCPU:], uint32(max(h.CurrentCPU, 0)))
	o.PutUint32(b[offNrCPUs:], uint32(h.NrCPUs))
}

//nolint:gosec // all values were checked by Layout
func (h *Header) encodeSub(b []byte, l Layout) {
	o := h.order()
	o.PutUint64(b[offPhysBase:], h.PhysBase)
	o.PutUint32(b[offDumpLevel:], uint32(h.DumpLevel))
	if desc, off := vmcore.FindVMCOREINFO(h.Notes, o); desc != nil {
		o.PutUint64(b[offVmcoreinfoOff:], uint64(l.Notes)+uint64(off))
		o.PutUint64(b[offVmcoreinfoSize:], uint64(len(desc)))
	}
	if desc, off := vmcore.FindERASEINFO(h.Notes, o); h.Eraseinfo && len(desc) > 0 {
		o.PutUint64(b[offEraseinfoOff:], uint64(l.Notes)+uint64(off))
		o.PutUint64(b[offEraseinfoSize:], uint64(len(desc)))
	}
	if len(h.Notes) > 0 {
		o.PutUint64(b[offNoteOff:], uint64(l.Notes))
		o.PutUint64(b[offNoteSize:], uint64(len(h.Notes)))
	}
	o.PutUint64(b[offMaxMapnr64:], uint64(h.MaxPFN))
}

// Layout is the places of the parts of a file, in bytes from its start.
type Layout struct {
	PageSize  int
	MaxPFN    mem.PFN
	SubHeader int64  // one block in
	Notes     int64  // right behind the sub header
	Bitmap1   int64  // the frame is RAM
	Bitmap2   int64  // the page is in the file
	BitmapLen int64  // of each bitmap, in whole blocks
	Descs     int64  // page descriptors
	Planned   uint64 // how many
	// Data is the start of page data. The first page there is the shared zero page. Data is a multiple of the block
	// size, so that a block holds either descriptors or page data.
	Data int64
}

// ZeroPage returns the offset of the raw zero page to which the descriptors of all zero pages point.
func (l Layout) ZeroPage() int64 { return l.Data }

// FirstPage returns the lowest offset of other page data.
func (l Layout) FirstPage() int64 { return l.Data + int64(l.PageSize) }

// DescsEnd returns the end of the last descriptor.
func (l Layout) DescsEnd() int64 { return l.DescOffset(l.Planned) }

// DescOffset returns the offset of descriptor n, which belongs to the n-th set bit of the 2nd bitmap, counted from 0.
func (l Layout) DescOffset(n uint64) int64 {
	return l.Descs + int64(n)*PageDescLen //nolint:gosec // n is at most MaxPFN
}

// ZeroDesc returns the descriptor of an all-zero page.
func (l Layout) ZeroDesc() PageDesc {
	return PageDesc{Offset: l.ZeroPage(), Size: uint32(l.PageSize)} //nolint:gosec // at most 64 KiB
}

// Layout returns the layout of a file with this header and number of planned pages.
func (h *Header) Layout(planned uint64) (Layout, error) {
	if err := h.check(); err != nil {
		return Layout{}, err
	}
	if planned > uint64(h.MaxPFN) {
		return Layout{}, fmt.Errorf("kdumpfile: %d pages planned, more than max_mapnr %d", planned, h.MaxPFN)
	}
	block := int64(h.PageSize)
	l := Layout{PageSize: h.PageSize, MaxPFN: h.MaxPFN, Planned: planned, SubHeader: block}
	l.Notes = l.SubHeader + subHeaderLen
	l.Bitmap1 = roundUp(l.Notes+int64(len(h.Notes)), block)
	l.BitmapLen = roundUp(bitmapBytes(h.MaxPFN), block)
	l.Bitmap2 = l.Bitmap1 + l.BitmapLen
	l.Descs = l.Bitmap2 + l.BitmapLen
	l.Data = roundUp(l.DescsEnd(), block)
	return l, nil
}

// bitmapBytes returns the bytes of a bitmap that has a bit for each frame.
func bitmapBytes(maxPFN mem.PFN) int64 { return int64((maxPFN + 7) / 8) } //nolint:gosec // at most 1 << 37

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
