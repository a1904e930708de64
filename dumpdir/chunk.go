package dumpdir

import (
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Limits of one chunk. A sender's chunks have about 1 MiB of raw pages. The journal record of a chunk at both limits
// still fits into one record.
const (
	MaxChunkPages   = 4096     // pages of all kinds in one chunk
	MaxChunkExtents = 4096     // extents of one chunk
	MaxChunkRaw     = 16 << 20 // raw bytes of its data pages, which a reader keeps in memory
)

// Flags of a PageRecord: the compressor of a page, with the values of page_desc.flags.
const (
	PageRaw    = uint32(kdumpfile.Raw)    // not compressed; Size is the page size
	PageZlib   = uint32(kdumpfile.Zlib)   // since header_version 1
	PageLZO    = uint32(kdumpfile.LZO)    // since header_version 5
	PageSnappy = uint32(kdumpfile.Snappy) // since header_version 6
	PageZstd   = uint32(kdumpfile.Zstd)   // since header_version 6

	allCodecs = PageZlib | PageLZO | PageSnappy | PageZstd
)

// PageRecord is one stored page: its length in bytes, from 1 to the page size, and its compressor.
type PageRecord struct {
	Size  uint32
	Flags uint32
}

// check returns an error if readers of the file would refuse the record.
func (p PageRecord) check(pageSize int) error {
	switch {
	case p.Size == 0 || p.Size > uint32(pageSize):
		return fmt.Errorf("stored size %d", p.Size)
	case !kdumpfile.Codec(p.Flags).Known():
		return fmt.Errorf("compressor %#x", p.Flags)
	case p.Flags == PageRaw && p.Size != uint32(pageSize):
		return fmt.Errorf("raw page of %d bytes", p.Size)
	}
	return nil
}

// Chunk is a group of pages for the writer.
type Chunk struct {
	Seq     uint64         // number in the plan, from 0
	Extents []chunk.Extent // ascending, disjoint
	RawSum  uint64         // xxh3-64 of the raw bytes of the data pages, in extent order
	Pages   []PageRecord   // one for every page of the data extents, in order
	Data    []byte         // their stored bytes, back to back
}

// shape is the checked size of a chunk.
type shape struct {
	pages, zero uint64
	bytes       int64
}

// checkShape checks extents and records against each other and against the limits. Its errors have no type: callers
// know whether a peer or a file is to blame.
func checkShape(extents []chunk.Extent, pages []PageRecord, pageSize int, limit mem.PFN) (s shape, err error) {
	if len(extents) == 0 || len(extents) > MaxChunkExtents {
		return s, fmt.Errorf("%d extents", len(extents))
	}
	var last mem.PFN
	for _, e := range extents {
		if e.Count > MaxChunkPages || !e.Valid(limit) || e.Start < last || e.Kind > chunk.Zero {
			return s, fmt.Errorf("extent of %d pages at pfn %d after pfn %d", e.Count, e.Start, last)
		}
		last = e.End()
		s.pages += e.Count
		if e.Kind == chunk.Zero {
			s.zero += e.Count
		}
	}
	if s.pages > MaxChunkPages {
		return s, fmt.Errorf("%d pages", s.pages)
	}
	if uint64(len(pages)) != s.pages-s.zero {
		return s, fmt.Errorf("%d page records for %d data pages", len(pages), s.pages-s.zero)
	}
	if len(pages) > MaxChunkRaw/pageSize {
		return s, fmt.Errorf("%d data pages of %d bytes", len(pages), pageSize)
	}
	for i, p := range pages {
		if err := p.check(pageSize); err != nil {
			return s, fmt.Errorf("page record %d: %w", i, err)
		}
		s.bytes += int64(p.Size)
	}
	return s, nil
}

// check returns an error if c violates the rules for chunks of this machine.
func (c *Chunk) check(pageSize int, limit mem.PFN) (shape, error) {
	s, err := checkShape(c.Extents, c.Pages, pageSize, limit)
	if err == nil && int64(len(c.Data)) != s.bytes {
		err = fmt.Errorf("%d bytes for records of %d", len(c.Data), s.bytes)
	}
	if err != nil {
		return s, fmt.Errorf("%w: chunk %d: %w", ErrBadChunk, c.Seq, err)
	}
	return s, nil
}

// PageDecoder decodes page records and sums up the raw pages. It owns its buffers: one decoder serves one goroutine
// and many chunks.
type PageDecoder struct {
	pageSize int
	page     []byte
	sum      *xxh3.Hasher
}

// NewPageDecoder returns a decoder for pages of pageSize bytes.
func NewPageDecoder(pageSize int) *PageDecoder {
	return &PageDecoder{pageSize: pageSize, page: make([]byte, pageSize), sum: xxh3.New()}
}

// Page decodes one page. The result is valid until the next call.
func (d *PageDecoder) Page(rec PageRecord, stored []byte) ([]byte, error) {
	if err := rec.check(d.pageSize); err != nil {
		return nil, err
	}
	if rec.Flags == PageRaw {
		return stored, nil
	}
	return d.page, kdumpfile.DecodePage(d.page, stored, rec.Flags)
}

// Sum decodes the records of a chunk and returns the xxh3-64 of the raw pages, which the sender computed before it
// compressed them. data holds exactly the bytes of the records. The error matches ErrBadChunk and names the record
// that does not decode.
func (d *PageDecoder) Sum(pages []PageRecord, data []byte) (uint64, error) {
	d.sum.Reset()
	for i, p := range pages {
		if uint64(len(data)) < uint64(p.Size) {
			return 0, fmt.Errorf("%w: page record %d lies beyond the data", ErrBadChunk, i)
		}
		raw, err := d.Page(p, data[:p.Size])
		if err != nil {
			return 0, fmt.Errorf("%w: page record %d: %w", ErrBadChunk, i, err)
		}
		_, _ = d.sum.Write(raw) // a hash never fails
		data = data[p.Size:]
	}
	if len(data) != 0 {
		return 0, fmt.Errorf("%w: %d bytes behind the last page record", ErrBadChunk, len(data))
	}
	return d.sum.Sum64(), nil
}
