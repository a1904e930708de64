package kdumpfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/vmcoreinfo"
)

// fileHeader is the headers of a file, checked as far as the file's size allows.
type fileHeader struct {
	Header
	version    int
	l          Layout // Planned and Data are not set here
	bitmaps    int    // 1 or 2
	split      bool
	start, end mem.PFN // frames that the descriptors cover
	vmcoreinfo textInfo
	eraseinfo  textInfo
	lacks      []string // the parts of the notes that are not in the file
	warnings   []string // of the notes
}

// textInfo is the offset and length in bytes of a text that the sub header names.
type textInfo struct{ off, size uint64 }

// decodeHeaders reads and checks both headers and the notes.
func decodeHeaders(r io.ReaderAt, size int64) (*fileHeader, error) {
	main, err := readRange(r, size, "main header", 0, mainHeaderLen)
	if err != nil {
		return nil, err
	}
	h := &fileHeader{}
	if err := h.decodeMain(main, size); err != nil {
		return nil, err
	}
	sub, err := readRange(r, size, "sub header", h.l.SubHeader, subHeaderLen)
	switch {
	case errors.Is(err, vmcore.ErrTruncated) && h.l.Bitmap1 < size:
		err = h.withoutSub(r, size)
	case err == nil:
		err = h.decodeSub(r, size, sub)
	}
	if err != nil {
		return nil, err
	}
	return h, h.checkBitmaps(size, binary.ByteOrder(h.order()).Uint32(main[offBitmapBlocks:]))
}

func (h *fileHeader) decodeMain(b []byte, size int64) error {
	switch {
	case bytes.HasPrefix(b, []byte(diskSignature)):
		return vmcore.Unsupportedf("signature", 0, "a file of the old diskdump facility")
	case !bytes.HasPrefix(b, []byte(Signature)):
		return vmcore.ErrUnknownFormat
	}
	if err := h.detectOrder(b); err != nil {
		return err
	}
	o := h.order()
	h.version = int32Of(o.Uint32(b[offVersion:]))
	if h.version < 0 {
		return vmcore.Corruptf("header_version", offVersion, "%d", h.version)
	}
	for i, s := range h.Utsname.Fields() {
		field := b[offUtsname+i*uts.FieldLen:][:uts.FieldLen]
		text, _, _ := bytes.Cut(field, []byte{0})
		*s = string(text)
	}
	h.Time = decodeTime(o.Uint64(b[offTimestamp:]), o.Uint64(b[offTimestamp+8:]))
	h.Status = o.Uint32(b[offStatus:])
	h.MaxPFN = mem.PFN(o.Uint32(b[offMaxMapnr:]))
	h.CurrentCPU = int(o.Uint32(b[offCurrentCPU:]))
	h.NrCPUs = int32Of(o.Uint32(b[offNrCPUs:]))
	return h.placeBitmaps(int64(o.Uint32(b[offSubHdrSize:])), size)
}

// int32Of returns the value of a field that is an i32 in the file.
func int32Of(v uint32) int { return int(int32(v)) } //nolint:gosec // the same bits

// detectOrder finds the byte order and the width of the header: block_size must be a page size.
func (h *fileHeader) detectOrder(b []byte) error {
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if n := o.Uint32(b[offBlockSize:]); n <= vmcore.MaxPageSize && vmcore.ValidPageSize(int(n)) {
			h.ByteOrder, h.PageSize = o, int(n)
			return nil
		}
	}
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if n := o.Uint32(b[offBlockSize32:]); n <= vmcore.MaxPageSize && vmcore.ValidPageSize(int(n)) {
			return vmcore.Unsupportedf("main header", 0, "written on a 32-bit machine; only dumps of 64-bit machines are read")
		}
	}
	le, be := binary.LittleEndian.Uint32(b[offBlockSize:]), binary.BigEndian.Uint32(b[offBlockSize:])
	for _, n := range []uint32{le, be} {
		if n >= minBlockSize && n <= maxBlockSize && n&(n-1) == 0 {
			return vmcore.Unsupportedf("block_size", offBlockSize, "pages of %d bytes; only those of %v are read", n, vmcore.PageSizes)
		}
	}
	return vmcore.Corruptf("block_size", offBlockSize, "%d is none of %v in either byte order", le, vmcore.PageSizes)
}

// decodeTime returns the zero time when there is none: QEMU writes zeros.
func decodeTime(sec, usec uint64) time.Time {
	const end = 253402300799 // of the year 9999
	if sec > end || usec >= 1e6 || sec == 0 && usec == 0 {
		return time.Time{}
	}
	return time.Unix(int64(sec), int64(usec)*1000).UTC()
}

// placeBitmaps finds the start of the bitmaps. Their length depends on the sub header.
func (h *fileHeader) placeBitmaps(subBlocks, size int64) error {
	block := int64(h.PageSize)
	if subBlocks == 0 || subBlocks > maxSubHeader/block {
		return vmcore.Corruptf("sub_hdr_size", offSubHdrSize, "%d blocks", subBlocks)
	}
	h.l = Layout{PageSize: h.PageSize, SubHeader: block, Bitmap1: block * (1 + subBlocks)}
	if h.l.Bitmap1 > size {
		return vmcore.Truncatedf("sub header", block, "%d blocks of it do not fit in a file of %d bytes", subBlocks, size)
	}
	return nil
}

func (h *fileHeader) decodeSub(r io.ReaderAt, size int64, b []byte) error {
	o := h.order()
	at := h.l.SubHeader
	h.PhysBase = o.Uint64(b[offPhysBase:])
	h.DumpLevel = -1
	if h.version >= 1 {
		h.DumpLevel = int32Of(o.Uint32(b[offDumpLevel:]))
	}
	if h.version >= 6 {
		h.MaxPFN = mem.PFN(o.Uint64(b[offMaxMapnr64:]))
	}
	if h.MaxPFN == 0 || h.MaxPFN > MaxPFN {
		return vmcore.Corruptf("max_mapnr", at+offMaxMapnr64, "%d is not in 1 to %d", h.MaxPFN, uint64(MaxPFN))
	}
	if err := h.decodeSplit(b); err != nil {
		return err
	}
	if h.version >= 3 {
		h.vmcoreinfo = textInfo{o.Uint64(b[offVmcoreinfoOff:]), o.Uint64(b[offVmcoreinfoSize:])}
	}
	if h.version >= 5 {
		h.eraseinfo = textInfo{o.Uint64(b[offEraseinfoOff:]), o.Uint64(b[offEraseinfoSize:])}
	}
	if h.version < 4 {
		return nil
	}
	return h.readNotes(r, size, o.Uint64(b[offNoteOff:]), o.Uint64(b[offNoteSize:]))
}

// withoutSub handles a flattened file without a record for the sub header: the main header has max_mapnr, too, and
// makedumpfile writes the notes behind the sub header.
func (h *fileHeader) withoutSub(r io.ReaderAt, size int64) error {
	at := h.l.SubHeader
	if h.MaxPFN == 0 || h.MaxPFN == math.MaxUint32 { // the main header has 32 bits of it
		return vmcore.Truncatedf("sub header", at, "it is not there, and max_mapnr of the main header is %d", h.MaxPFN)
	}
	h.lacks = append(h.lacks, fmt.Sprintf("its sub header, %d bytes at offset %d, is not there: phys_base and dump level are not known", subHeaderLen, at))
	h.version, h.DumpLevel = 0, -1
	h.start, h.end = 0, h.MaxPFN
	at += subHeaderLen
	return h.readNotes(r, size, uint64(at), uint64(vmcore.BytesFrom(r, size, at, h.l.Bitmap1-at))) //nolint:gosec // not negative
}

func (h *fileHeader) decodeSplit(b []byte) error {
	o := h.order()
	h.start, h.end = 0, h.MaxPFN
	if h.version < 2 || o.Uint32(b[offSplit:]) == 0 {
		return nil
	}
	h.split = true
	h.start, h.end = mem.PFN(o.Uint64(b[offStartPFN:])), mem.PFN(o.Uint64(b[offEndPFN:]))
	if h.version >= 6 {
		h.start, h.end = mem.PFN(o.Uint64(b[offStartPFN64:])), mem.PFN(o.Uint64(b[offEndPFN64:]))
	}
	if h.start > h.end || h.end > h.MaxPFN {
		return vmcore.Corruptf("split", h.l.SubHeader+offSplit, "piece of frames %d to %d of %d", h.start, h.end, h.MaxPFN)
	}
	return nil
}

func (h *fileHeader) readNotes(r io.ReaderAt, size int64, off, n uint64) error {
	if n == 0 {
		return nil
	}
	if n > 1<<62 || off > 1<<62 {
		return vmcore.Corruptf("size_note", h.l.SubHeader+offNoteSize, "%d bytes of notes at %#x", n, off)
	}
	have := vmcore.BytesFrom(r, size, int64(off), int64(n))
	switch {
	case int64(off) > size-int64(n):
		return vmcore.Truncatedf("notes", int64(off), "of %d bytes %d are there, in a file of %d bytes", n, have, size)
	case have < int64(n):
		h.lacks = append(h.lacks, fmt.Sprintf("of its notes, %d bytes at offset %d, only %d bytes are there", n, off, have))
	}
	read := func(off int64, n int) ([]byte, error) { return readRange(r, size, "notes", off, n) }
	warn := func(format string, args ...any) { h.warnings = append(h.warnings, fmt.Sprintf(format, args...)) }
	b, err := vmcore.ReadNotes(read, h.order(), []vmcore.Segment{{Offset: int64(off), Filesz: uint64(have)}}, warn) //nolint:gosec // not negative
	h.Notes, h.l.Notes = b, int64(off)
	return err
}

// checkBitmaps finds the places of the bitmaps and checks that the file has them.
func (h *fileHeader) checkBitmaps(size int64, blocks uint32) error {
	block := int64(h.PageSize)
	h.l.MaxPFN = h.MaxPFN
	h.l.BitmapLen = roundUp(bitmapBytes(h.MaxPFN), block)
	h.bitmaps = 2
	all := int64(blocks) * block
	// Files of the diskdump facility have one bitmap, because all RAM is dumped. crash uses the same comparison.
	if all < 2*h.l.BitmapLen {
		h.bitmaps = 1
	}
	if all < h.l.BitmapLen {
		return vmcore.Corruptf("bitmap_blocks", offBitmapBlocks, "%d blocks are too few for %d page frames", blocks, h.MaxPFN)
	}
	h.l.Bitmap2 = h.l.Bitmap1 + int64(h.bitmaps-1)*all/2
	h.l.Descs = h.l.Bitmap1 + all
	if h.l.Descs > size {
		return vmcore.Truncatedf("bitmaps", h.l.Bitmap1, "they end at %#x, the file at %#x", h.l.Descs, size)
	}
	return nil
}

// readRange reads n bytes at off. They must be in the file.
func readRange(r io.ReaderAt, size int64, what string, off int64, n int) ([]byte, error) {
	if have := vmcore.BytesFrom(r, size, off, int64(n)); have < int64(n) {
		return nil, vmcore.Truncatedf(what, off, "of %d bytes %d are there, in a file of %d bytes", n, have, size)
	}
	b := make([]byte, n)
	if err := readFull(r, b, off); err != nil {
		return nil, err
	}
	return b, nil
}

// readFull fills b from offset off. A file that became shorter is truncated.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return vmcore.Truncatedf("file", off, "%d of %d bytes", n, len(b))
	}
	return err
}

// vmcoreInfo converts the headers to Info.
func (h *fileHeader) vmcoreInfo(r io.ReaderAt, size int64) *vmcore.Info {
	i := &vmcore.Info{
		Format:          vmcore.FormatKdump,
		Inner:           vmcore.FormatKdump,
		Machine:         vmcore.MachineNamed(h.Utsname.Machine),
		ByteOrder:       h.ByteOrder,
		PageSize:        h.PageSize,
		MaxPFN:          h.MaxPFN,
		Utsname:         h.Utsname,
		Timestamp:       h.Time,
		ExcludedVmemmap: h.Status&StatusExcludedVmemmap != 0,
		PhysBase:        h.PhysBase,
	}
	if h.version > Version {
		i.Warnf("header_version %d is newer than %d", h.version, Version)
	}
	if h.Status&StatusIncomplete != 0 {
		i.Lackf("its header has makedumpfile's mark of an incomplete dump")
	}
	if h.split {
		i.Lackf("%s", h.pieceLack())
	}
	i.Warnings = append(i.Warnings, h.warnings...)
	for _, lack := range h.lacks {
		i.Lackf("%s", lack)
	}
	h.clampCounts(i)
	i.NrCPUs, i.CurrentCPU, i.DumpLevel = h.NrCPUs, h.CurrentCPU, h.DumpLevel
	if err := h.addEraseinfo(r, size); err != nil {
		lackOrWarn(i, fmt.Errorf("ERASEINFO: %w; what was erased is not known", err))
	}
	if err := h.addVMCOREINFO(r, size); err != nil {
		lackOrWarn(i, err)
	}
	i.AddNotes(h.Notes)
	return i
}

// pieceLack says what one piece of a --split set lacks.
func (h *fileHeader) pieceLack() string {
	return fmt.Sprintf("it is one piece of a --split set, with pfn %d to %d; those of the other pieces look excluded", h.start, h.end)
}

// lackOrWarn records why a text of the sub header cannot be read. Bytes that are not in the file are lacking.
func lackOrWarn(i *vmcore.Info, err error) {
	if errors.Is(err, vmcore.ErrTruncated) {
		i.Lackf("%v", err)
		return
	}
	i.Warnf("%v", err)
}

// clampCounts replaces invalid counts by unknown ones: nothing depends on them, and they could not be written again.
func (h *fileHeader) clampCounts(i *vmcore.Info) {
	if h.NrCPUs < 0 || h.NrCPUs > maxCPUs {
		i.Warnf("nr_cpus %d makes no sense and is not used", h.NrCPUs)
		h.NrCPUs = 0
	}
	if h.CurrentCPU > maxCPUs {
		i.Warnf("current_cpu %d makes no sense and is not used", h.CurrentCPU)
		h.CurrentCPU = -1
	}
	if h.DumpLevel < -1 || h.DumpLevel > maxDumpLevel {
		i.Warnf("dump_level %d is not in 0 to %d; anything may have been left out", h.DumpLevel, maxDumpLevel)
		h.DumpLevel = maxDumpLevel
	}
}

// addVMCOREINFO puts the text that the sub header names before the notes, as a note, unless they have a valid one:
// files of header_version 3 have no notes.
func (h *fileHeader) addVMCOREINFO(r io.ReaderAt, size int64) error {
	if desc, _ := vmcore.FindVMCOREINFO(h.Notes, h.order()); desc != nil {
		if _, err := vmcoreinfo.Parse(desc); err == nil {
			return nil
		}
	}
	b, err := h.vmcoreinfo.read(r, size, "vmcoreinfo")
	if err != nil || len(b) == 0 {
		return err
	}
	if _, err := vmcoreinfo.Parse(b); err != nil {
		return err
	}
	h.Notes = append(vmcore.AppendVMCOREINFO(nil, h.order(), b), h.Notes...)
	return nil
}

// addEraseinfo puts the text that the sub header names before the notes, as a note, unless a note has it.
func (h *fileHeader) addEraseinfo(r io.ReaderAt, size int64) error {
	b, err := h.eraseinfo.read(r, size, "eraseinfo")
	if err != nil || len(b) == 0 {
		return err
	}
	for n, err := range vmcore.Notes(h.Notes, h.order()) {
		if err == nil && bytes.Equal(n.Desc, b) {
			return nil
		}
	}
	h.Notes = append(vmcore.AppendERASEINFO(nil, h.order(), b), h.Notes...)
	return nil
}

// maxText bounds the texts that the sub header names.
const maxText = vmcoreinfo.MaxBytes

// read returns the text, or nil if there is none.
func (t textInfo) read(r io.ReaderAt, size int64, what string) ([]byte, error) {
	if t.size == 0 || t.off == 0 {
		return nil, nil
	}
	if t.size > maxText || t.off > 1<<62 {
		return nil, vmcore.Corruptf(what, int64(min(t.off, 1<<62)), "%d bytes, more than %d", t.size, maxText)
	}
	return readRange(r, size, what, int64(t.off), int(t.size))
}
