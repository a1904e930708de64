package dumpdir

import (
	"fmt"
	"hash/crc32"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
)

const (
	chunkFixedLen  = 40      // seq, offset, raw sum, data length, extents, pages
	chunkExtentLen = 12      // u64 start, u32 count with the kind in the top bit
	chunkPageLen   = 8       // u32 size with the compressor in the top byte, u32 CRC-32C
	zeroExtentBit  = 1 << 31 // in an extent's count
	codecShift     = 24      // of a page's size
)

// chunkRecord is the journal's word on one stored chunk.
type chunkRecord struct {
	seq     uint64
	offset  int64 // of the first stored byte in vmcore; where it would be for a chunk without data
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
	b = le.AppendUint64(b, uint64(offset)) //nolint:gosec // not negative
	b = le.AppendUint64(b, c.RawSum)
	b = le.AppendUint64(b, uint64(len(c.Data)))
	b = le.AppendUint32(b, uint32(len(c.Extents))) //nolint:gosec // at most MaxChunkExtents
	b = le.AppendUint32(b, uint32(len(c.Pages)))   //nolint:gosec // at most MaxChunkPages
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

// decode reads a chunk record's payload into r, whose slices it reuses, and checks
// it against the plan's numbers.
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
