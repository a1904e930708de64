package dumpdir

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
)

// maxReason bounds the reason of a seal, in bytes.
const maxReason = 512

type identRecord struct{ id, host string }

func (r *identRecord) encode() []byte {
	return appendStr(appendStr(nil, r.id), r.host)
}

func decodeIdent(p []byte) (r identRecord, ok bool) {
	c := cursor{b: p}
	r = identRecord{id: c.str(), host: c.str()}
	return r, c.done() && ValidID(r.id) && r.host == clean(r.host, maxHost)
}

type logRecord struct {
	size int64
	sum  [32]byte // SHA-256
}

func (r *logRecord) encode() []byte {
	return append(appendI64(nil, r.size), r.sum[:]...)
}

func decodeLog(p []byte) (r logRecord, ok bool) {
	c := cursor{b: p}
	r.size = c.offset()
	copy(r.sum[:], c.bytes(len(r.sum)))
	return r, c.done()
}

const (
	factBigEndian = 1 << 0
	// Since journal version 2:
	factExcludedVmemmap = 1 << 1
	factEraseinfo       = 1 << 2
)

// encodeFacts encodes f without notes and RAM, which have their own records. It checks nothing.
func encodeFacts(f *Facts) []byte {
	var flags uint32
	for flag, set := range map[uint32]bool{factBigEndian: f.BigEndian, factExcludedVmemmap: f.ExcludedVmemmap, factEraseinfo: f.eraseinfo} {
		if set {
			flags |= flag
		}
	}
	b := appendU32(nil, f.PageSize)
	b = le.AppendUint32(b, f.NrCPUs)
	b = le.AppendUint32(b, f.CurrentCPU)
	b = le.AppendUint32(b, f.Codecs)
	b = le.AppendUint64(b, uint64(f.MaxPFN))
	b = le.AppendUint64(b, f.PhysBase)
	b = appendI64(b, f.Time.Unix())
	b = appendU32(b, f.Time.Nanosecond()/1000)
	b = le.AppendUint32(b, uint32(f.DumpLevel))
	b = le.AppendUint32(b, flags)
	b = appendU32(b, len(f.Notes))
	b = appendU32(b, len(f.RAM))
	for _, s := range f.Utsname.Fields() {
		b = appendStr(b, *s)
	}
	return b
}

// journalVersion is the lowest version that can hold all of f.
func (f *Facts) journalVersion() uint16 {
	if f.ExcludedVmemmap || f.eraseinfo {
		return journalVersion2
	}
	return journalVersion1
}

// decodeFacts decodes the payload of a facts record, and the lengths of the notes and RAM that follow.
func decodeFacts(p []byte, version uint16) (f Facts, notes, ram int, ok bool) {
	c := cursor{b: p}
	f.PageSize = int(c.u32())
	f.NrCPUs, f.CurrentCPU, f.Codecs = c.u32(), c.u32(), c.u32()
	f.MaxPFN = mem.PFN(c.u64())
	f.PhysBase = c.u64()
	sec, usec := c.i64(), c.u32()
	f.Time = time.Unix(sec, int64(usec)*1000).UTC()
	level, flags := c.u32(), c.u32()
	notes, ram = int(c.u32()), int(c.u32())
	for _, s := range f.Utsname.Fields() {
		*s = c.str()
	}
	f.DumpLevel, f.BigEndian = uint8(level&0xff), flags&factBigEndian != 0
	f.ExcludedVmemmap, f.eraseinfo = flags&factExcludedVmemmap != 0, flags&factEraseinfo != 0
	known := uint32(factBigEndian)
	if version >= journalVersion2 {
		known |= factExcludedVmemmap | factEraseinfo
	}
	ok = c.done() && level <= maxDumpLevel && flags&^known == 0 && usec < 1e6 &&
		notes <= MaxNotesLen && ram <= MaxRAMRanges && f.check() == nil
	return f, notes, ram, ok
}

// encodePlanEnd encodes p: for version 3 if both halves of its hash are known, else for any version.
func encodePlanEnd(p *PlanInfo) []byte {
	b := le.AppendUint64(nil, binary.BigEndian.Uint64(p.Hash[:8]))
	b = le.AppendUint64(b, p.Chunks)
	b = le.AppendUint64(b, p.Pages)
	b = le.AppendUint64(b, p.Runs)
	b = appendI64(b, p.DataOffset)
	if p.Hash.Whole() {
		b = le.AppendUint64(b, binary.BigEndian.Uint64(p.Hash[8:]))
	}
	return b
}

func decodePlanEnd(p []byte, version uint16) (info PlanInfo, ok bool) {
	c := cursor{b: p}
	binary.BigEndian.PutUint64(info.Hash[:8], c.u64())
	info.Chunks, info.Pages, info.Runs = c.u64(), c.u64(), c.u64()
	info.DataOffset = c.offset()
	if version >= journalVersion3 {
		binary.BigEndian.PutUint64(info.Hash[8:], c.u64())
	}
	return info, c.done()
}

type sealRecord struct {
	state   State
	time    int64 // Unix seconds
	present uint64
	size    int64 // of vmcore
	sum     [32]byte
	reason  string
}

// sealFixedLen is the length of a seal's payload before the reason.
const sealFixedLen = 66

var sealStates = map[uint8]State{1: StateComplete, 2: StatePartial, 3: StateLogOnly}

func (r *sealRecord) encode() []byte {
	var code uint8
	for k, s := range sealStates {
		if s == r.state {
			code = k
		}
	}
	b := append([]byte{code}, make([]byte, 7)...)
	b = appendI64(b, r.time)
	b = le.AppendUint64(b, r.present)
	b = appendI64(b, r.size)
	b = append(b, r.sum[:]...)
	b = le.AppendUint16(b, uint16(len(r.reason))) //nolint:gosec // at most maxReason
	return append(b, r.reason...)
}

func decodeSeal(p []byte) (r sealRecord, ok bool) {
	c := cursor{b: p}
	r.state = sealStates[c.u8()]
	c.zeros(7)
	r.time = c.i64()
	r.present, r.size = c.u64(), c.offset()
	copy(r.sum[:], c.bytes(len(r.sum)))
	r.reason = string(c.bytes(int(c.u16())))
	return r, c.done() && r.state != "" && r.reason == clean(r.reason, maxReason)
}

const (
	chunkFixedLen  = 40      // seq, offset, raw sum, data length, extents, pages
	chunkExtentLen = 12      // u64 start, u32 count with the kind in the top bit
	chunkPageLen   = 8       // u32 size with the compressor in the top byte, u32 CRC-32C
	zeroExtentBit  = 1 << 31 // in an extent's count
	codecShift     = 24      // of a page's size
)

// chunkRecord is the journal's record of a stored chunk.
type chunkRecord struct {
	seq     uint64
	offset  int64 // of the first stored byte in vmcore, also for a chunk without data
	rawSum  uint64
	bytes   int64
	extents []chunk.Extent
	pages   []PageRecord
	sums    []uint32 // CRC-32C of each page's stored bytes
	shape   shape
}

func (r *chunkRecord) end() int64 { return r.offset + r.bytes }

// appendChunkRecord appends the payload of the record for c, stored at offset.
func appendChunkRecord(b []byte, c *Chunk, offset int64) []byte {
	b = le.AppendUint64(b, c.Seq)
	b = appendI64(b, offset)
	b = le.AppendUint64(b, c.RawSum)
	b = le.AppendUint64(b, uint64(len(c.Data)))
	b = appendU32(b, len(c.Extents))
	b = appendU32(b, len(c.Pages))
	for _, e := range c.Extents {
		count := uint32(e.Count) //nolint:gosec // at most MaxChunkPages
		if e.Kind == chunk.Zero {
			count |= zeroExtentBit
		}
		b = le.AppendUint64(b, uint64(e.Start))
		b = le.AppendUint32(b, count)
	}
	data := c.Data
	for _, p := range c.Pages {
		b = le.AppendUint32(b, p.Size|p.Flags<<codecShift)
		b = le.AppendUint32(b, crc32.Checksum(data[:p.Size], castagnoli))
		data = data[p.Size:]
	}
	return b
}

// decode decodes the payload of a chunk record into r, reuses r's slices, and checks it against the plan.
func (r *chunkRecord) decode(p []byte, plan *PlanInfo) error {
	c := cursor{b: p}
	r.seq, r.offset, r.rawSum, r.bytes = c.u64(), c.offset(), c.u64(), c.offset()
	extents, pages := c.u32(), c.u32()
	if c.bad || extents > MaxChunkExtents || pages > MaxChunkPages {
		return fmt.Errorf("chunk record with %d extents and %d pages", extents, pages)
	}
	r.extents, r.pages, r.sums = r.extents[:0], r.pages[:0], r.sums[:0]
	for range extents {
		e := chunk.Extent{Extent: mem.Extent{Start: mem.PFN(c.u64())}}
		n := c.u32()
		if n&zeroExtentBit != 0 {
			e.Kind = chunk.Zero
		}
		e.Count = uint64(n &^ zeroExtentBit)
		r.extents = append(r.extents, e)
	}
	for range pages {
		v := c.u32()
		r.pages = append(r.pages, PageRecord{Size: v & (1<<codecShift - 1), Flags: v >> codecShift})
		r.sums = append(r.sums, c.u32())
	}
	if !c.done() {
		return fmt.Errorf("chunk record of %d bytes does not hold what it announces", len(p))
	}
	return r.check(plan)
}

func (r *chunkRecord) check(plan *PlanInfo) (err error) {
	r.shape, err = checkShape(r.extents, r.pages, plan.PageSize, plan.MaxPFN)
	switch {
	case err != nil:
		return fmt.Errorf("chunk %d: %w", r.seq, err)
	case r.seq >= plan.Chunks:
		return fmt.Errorf("chunk %d of a plan of %d", r.seq, plan.Chunks)
	case r.bytes != r.shape.bytes:
		return fmt.Errorf("chunk %d: %d bytes for records of %d", r.seq, r.bytes, r.shape.bytes)
	case r.offset < plan.firstPage() || r.end() < r.offset:
		return fmt.Errorf("chunk %d: data at offset %d", r.seq, r.offset)
	}
	return nil
}
