package dumpdir

import (
	"github.com/corehaul/corehaul/mem"
)

// Limits of one chunk. A sender's chunks are about 1 MiB of raw pages.
const (
	MaxChunkPages   = 4096 // pages of all kinds in one chunk
	MaxChunkExtents = 4096 // extents of one chunk
)

// ExtentKind says what the pages of an extent are.
type ExtentKind uint8

const (
	ExtentData ExtentKind = iota // every page has a record in Pages and Data
	ExtentZero                   // the pages are all zero bytes and have no record
)

// ChunkExtent is a run of page frames of one kind.
type ChunkExtent struct {
	mem.Extent
	Kind ExtentKind
}

// Flags of a PageRecord: the compressor of a page, with the values that a
// kdump-compressed page descriptor has.
const (
	PageRaw    uint32 = 0    // stored as it is; Size is the page size
	PageZlib   uint32 = 0x1  // since header_version 1
	PageLZO    uint32 = 0x2  // since header_version 5
	PageSnappy uint32 = 0x4  // since header_version 6
	PageZstd   uint32 = 0x20 // since header_version 6
)

// PageRecord is one stored page: its length in bytes, at least 1 and at most the
// page size, and its compressor.
type PageRecord struct {
	Size  uint32
	Flags uint32
}

// Chunk is a group of pages as the writer takes them and stores them.
type Chunk struct {
	Seq     uint64        // number in the plan, from 0
	Extents []ChunkExtent // ascending, disjoint
	RawSum  uint64        // xxh3-64 of the raw bytes of the data pages, in extent order; 0 when there are none
	Pages   []PageRecord  // one for every page of the data extents, in order
	Data    []byte        // their stored bytes, back to back
}

// SeqRange is a run of chunk numbers, Count of them from Start on.
type SeqRange struct {
	Start, Count uint64
}

// End returns the number after the last one of r.
func (r SeqRange) End() uint64 { return r.Start + r.Count }

// PageDecoder turns page records back into raw pages and sums them. It owns its
// buffers: one decoder serves one goroutine, and many chunks.
type PageDecoder struct {
	pageSize int
	page     []byte
}

// NewPageDecoder returns a decoder for pages of pageSize bytes.
func NewPageDecoder(pageSize int) *PageDecoder {
	return &PageDecoder{pageSize: pageSize, page: make([]byte, pageSize)}
}

// Sum decodes every record of a chunk and returns the xxh3-64 of the raw pages:
// what a sender computed before it compressed them. The error matches ErrBadChunk
// and names the record that does not decode. data holds the records' bytes, no
// more and no less.
func (d *PageDecoder) Sum(pages []PageRecord, data []byte) (uint64, error) {
	return 0, errNotYet
}

// Check tells whether a chunk's pages decode to what its RawSum says. The error
// matches ErrBadChunk.
func (d *PageDecoder) Check(c *Chunk) error { return errNotYet }
