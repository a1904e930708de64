package protocol

import (
	"encoding/binary"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
)

const (
	kindBits      = 2 // kinds 2 and 3 are reserved
	chunkFixedLen = 20
	// emptySum is the XXH3-64 of no bytes: the RawSum of a chunk without data pages.
	emptySum = 0x2d06800538d394c2
)

// Chunk is up to ChunkPages pages of the plan.
//
// Payload of the message, little-endian:
//
//	 0  u64  seq
//	 8  u64  raw sum, XXH3-64 of the data pages before encoding
//	16  u8   encoding
//	17  u8   reserved, 0
//	18  u16  number of extents
//	20  extents: gap to the end of the one before, count*4 + kind (shortest LEB128)
//	    sizes of page records, one for each data page, only with page encodings (shortest LEB128)
//	    page records, or one block, or raw pages
//
// A chunk of Conn.Read owns its memory. It is valid until Conn.Release, or for ever without a Release.
type Chunk struct {
	// Seq is the chunk's number in the plan.
	Seq uint64
	// Extents ascend; neighbours that touch differ in kind.
	Extents []chunk.Extent
	// Encoding of Payload. Chunks without data pages have EncodingNone.
	Encoding Encoding
	// RawSum is [RawSum] of the data pages.
	RawSum uint64
	// Sizes of the page records in Payload, one for each data page; empty unless Encoding.Pages().
	// A record as large as a page is a raw page, any smaller one is compressed.
	Sizes []uint32
	// Payload is the encoded data pages.
	Payload []byte

	frame []byte // the memory of Payload
}

// DataPages returns the number of pages that have data.
func (ch *Chunk) DataPages() int { return ch.count(chunk.Data) }

// ZeroPages returns the number of pages that are all zeros.
func (ch *Chunk) ZeroPages() int { return ch.count(chunk.Zero) }

func (ch *Chunk) count(kind chunk.Kind) int {
	n := 0
	for _, e := range ch.Extents {
		if e.Kind == kind {
			n += int(e.Count) //nolint:gosec // at most 256 after check
		}
	}
	return n
}

// Check returns an Error unless ch may be sent for a dump with these parameters. Every chunk of Conn.Read has passed
// it.
func (ch *Chunk) Check(p Params) error {
	if ch.Seq > maxSeq {
		return Errorf(CodeTooLarge, "chunk number %d above %d", ch.Seq, uint64(maxSeq))
	}
	data, err := ch.checkExtents(p)
	if err != nil {
		return err
	}
	return ch.checkPayload(p, data)
}

// checkExtents returns the number of data pages.
func (ch *Chunk) checkExtents(p Params) (uint64, error) {
	room := uint64(ChunkPages(p.PageSize))
	if len(ch.Extents) == 0 || uint64(len(ch.Extents)) > room {
		return 0, Errorf(CodeTooLarge, "chunk %d: %d extents, want 1 to %d", ch.Seq, len(ch.Extents), room)
	}
	data, end := uint64(0), mem.PFN(0)
	for i, e := range ch.Extents {
		switch {
		case e.Kind > chunk.Zero:
			return 0, Errorf(CodeBadMessage, "chunk %d: extent %d of unknown kind %d", ch.Seq, i, e.Kind)
		case !e.Valid(p.MaxPFN):
			return 0, Errorf(CodeNotPlanned, "chunk %d: %d pages from pfn %d: empty or beyond max_pfn %d",
				ch.Seq, e.Count, uint64(e.Start), uint64(p.MaxPFN))
		case e.Count > room:
			return 0, Errorf(CodeTooLarge, "chunk %d: more than %d pages", ch.Seq, ChunkPages(p.PageSize))
		case i > 0 && (e.Start < end || e.Start == end && e.Kind == ch.Extents[i-1].Kind):
			return 0, Errorf(CodeBadMessage, "chunk %d: extent %d, %s, does not follow pfn %d", ch.Seq, i, e, uint64(end))
		}
		room -= e.Count
		end = e.End()
		if e.Kind == chunk.Data {
			data += e.Count
		}
	}
	return data, nil
}

func (ch *Chunk) checkPayload(p Params, data uint64) error {
	raw, size := data*uint64(p.PageSize), uint64(len(ch.Payload))
	switch {
	case !ch.Encoding.Known():
		return Errorf(CodeBadEncoding, "chunk %d: unknown encoding %d", ch.Seq, uint8(ch.Encoding))
	case data == 0 && (ch.Encoding != EncodingNone || ch.RawSum != emptySum):
		return Errorf(CodeBadMessage, "chunk %d: no data pages, but %s or a checksum", ch.Seq, ch.Encoding)
	case ch.Encoding == EncodingNone && size != raw:
		return Errorf(CodeBadMessage, "chunk %d: %d bytes for %d raw pages", ch.Seq, size, data)
	case ch.Encoding.Block() && (size == 0 || size >= raw):
		return Errorf(CodeBadMessage, "chunk %d: block of %d bytes for %d of raw pages", ch.Seq, size, raw)
	case !ch.Encoding.Pages() && len(ch.Sizes) > 0:
		return Errorf(CodeBadMessage, "chunk %d: page records in %s", ch.Seq, ch.Encoding)
	case ch.Encoding.Pages():
		return ch.checkSizes(p, data)
	}
	return nil
}

func (ch *Chunk) checkSizes(p Params, data uint64) error {
	if uint64(len(ch.Sizes)) != data {
		return Errorf(CodeBadMessage, "chunk %d: %d page records for %d pages", ch.Seq, len(ch.Sizes), data)
	}
	sum := uint64(0)
	for i, n := range ch.Sizes {
		if n == 0 || n > p.PageSize {
			return Errorf(CodeBadMessage, "chunk %d: page record %d of %d bytes", ch.Seq, i, n)
		}
		sum += uint64(n)
	}
	if sum != uint64(len(ch.Payload)) {
		return Errorf(CodeBadMessage, "chunk %d: page records of %d bytes in %d", ch.Seq, sum, len(ch.Payload))
	}
	return nil
}

// appendHead appends the message without the payload's pages.
func (ch *Chunk) appendHead(dst []byte, p Params) ([]byte, error) {
	if err := ch.Check(p); err != nil {
		return nil, err
	}
	dst = binary.LittleEndian.AppendUint64(dst, ch.Seq)
	dst = binary.LittleEndian.AppendUint64(dst, ch.RawSum)
	dst = append(dst, byte(ch.Encoding), 0)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(ch.Extents))) //nolint:gosec // at most 256 after Check
	end := mem.PFN(0)
	for _, e := range ch.Extents {
		dst = binary.AppendUvarint(dst, uint64(e.Start-end))
		dst = binary.AppendUvarint(dst, e.Count<<kindBits|uint64(e.Kind))
		end = e.End()
	}
	for _, n := range ch.Sizes {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst, nil
}

func (ch *Chunk) appendPayload(dst []byte, p Params) ([]byte, error) {
	dst, err := ch.appendHead(dst, p)
	if err != nil {
		return nil, err
	}
	return append(dst, ch.Payload...), nil
}

// decode reads a message into ch. It keeps views of b and reuses the memory of Extents and Sizes.
func (ch *Chunk) decode(b []byte, p Params) error {
	c := cursor{what: "CHUNK", b: b}
	ch.Seq, ch.RawSum, ch.Encoding = c.u64(), c.u64(), Encoding(c.u8())
	if reserved := c.u8(); reserved != 0 {
		c.fail(CodeBadMessage, "reserved byte %#02x", reserved)
	}
	ch.decodeExtents(&c, p)
	if c.err != nil {
		return c.err
	}
	if _, err := ch.checkExtents(p); err != nil {
		return err
	}
	ch.decodeSizes(&c, p)
	ch.Payload = c.bytes(c.left())
	if c.err != nil {
		return c.err
	}
	return ch.Check(p)
}

func (ch *Chunk) decodeExtents(c *cursor, p Params) {
	n, room := uint32(c.u16()), ChunkPages(p.PageSize)
	if n > room {
		c.fail(CodeTooLarge, "%d extents above %d", n, room)
	}
	ch.Extents = ch.Extents[:0]
	end := mem.PFN(0)
	for i := uint32(0); i < n && c.err == nil; i++ {
		gap, v := c.upTo(MaxPFN, "gap"), c.upTo(ChunkBytes<<kindBits, "length")
		e := chunk.Extent{Extent: mem.Extent{Start: end + mem.PFN(gap), Count: v >> kindBits}}
		e.Kind = chunk.Kind(v & (1<<kindBits - 1))
		ch.Extents = append(ch.Extents, e)
		end = e.End()
	}
}

func (ch *Chunk) decodeSizes(c *cursor, p Params) {
	ch.Sizes = ch.Sizes[:0]
	if !ch.Encoding.Pages() {
		return
	}
	for n := ch.DataPages(); n > 0 && c.err == nil; n-- {
		ch.Sizes = append(ch.Sizes, uint32(c.upTo(uint64(p.PageSize), "page record"))) //nolint:gosec // at most 64 KiB
	}
}
