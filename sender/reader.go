package sender

import (
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore"
)

// slot holds the buffers of one chunk between the dump file and the wire.
type slot struct {
	tier    uint8
	wanted  []mem.Extent // pages of the chunk by the plan
	data    uint64       // length of their contents without zero pages, in bytes
	encoded payload
	chunk   protocol.Chunk
	lost    []LostPage // pages that could not be read
}

// LostPage is a page that could not be read and is therefore left out of the dump.
type LostPage struct {
	PFN mem.PFN
	Err error
}

// String names the page first.
func (l LostPage) String() string { return fmt.Sprintf("pfn %d: %v", uint64(l.PFN), l.Err) }

// newSlot allocates a slot for pages of a size.
func newSlot(pageSize uint32) *slot {
	n := protocol.ChunkPages(pageSize)
	return &slot{
		wanted:  make([]mem.Extent, 0, n),
		encoded: payload{out: make([]byte, 0, encodedRoom(protocol.ChunkBytes, int(pageSize))), sizes: make([]uint32, 0, n)},
		chunk:   protocol.Chunk{Extents: make([]chunk.Extent, 0, n)},
	}
}

// fill reads the wanted pages into buf, which has room for a chunk, sets s.chunk except for the encoded payload, and returns the
// contents of the data pages, which are the begin of buf. Pages that cannot be read go to s.lost.
func (s *slot) fill(image vmcore.Image, buf []byte, pageSize int) []byte {
	s.chunk.Extents, s.lost = s.chunk.Extents[:0], s.lost[:0]
	data := 0
	for _, e := range s.wanted {
		// This always fits, because zero pages are not kept there.
		run := buf[data : data+int(e.Count)*pageSize]
		if readRun(image, run, e.Start) == nil {
			data += s.sort(e.Start, run, buf[data:], pageSize)
			continue
		}
		data += s.onePerPage(image, e, buf[data:], pageSize)
	}
	raw := buf[:data]
	s.chunk.RawSum = xxh3.Hash(raw)
	return raw
}

// readRun reads consecutive pages, with one call if the image is a vmcore.PageRun.
func readRun(image vmcore.Image, p []byte, pfn mem.PFN) error {
	if r, ok := image.(vmcore.PageRun); ok {
		return r.ReadPages(p, pfn)
	}
	size := image.Info().PageSize
	for ; len(p) > 0; p = p[size:] {
		if err := image.ReadPage(p[:size], pfn); err != nil {
			return err
		}
		pfn++
	}
	return nil
}

// sort adds the pages of run to the chunk's extents by kind and moves data pages to the begin of to, in which run may lie. It
// returns the length of the data pages in bytes.
func (s *slot) sort(pfn mem.PFN, run, to []byte, pageSize int) int {
	n := 0
	for ; len(run) > 0; run, pfn = run[pageSize:], pfn+1 {
		page := run[:pageSize]
		if vmcore.IsZero(page) {
			s.add(pfn, chunk.Zero)
			continue
		}
		s.add(pfn, chunk.Data)
		if dst := to[n : n+pageSize]; &dst[0] != &page[0] {
			copy(dst, page)
		}
		n += pageSize
	}
	return n
}

// onePerPage reads the pages of e one by one to the begin of to, because one of them cannot be read.
func (s *slot) onePerPage(image vmcore.Image, e mem.Extent, to []byte, pageSize int) int {
	n := 0
	for pfn := e.Start; pfn < e.End(); pfn++ {
		page := to[n : n+pageSize]
		if err := image.ReadPage(page, pfn); err != nil {
			s.lost = append(s.lost, LostPage{PFN: pfn, Err: err})
			continue
		}
		n += s.sort(pfn, page, to[n:], pageSize)
	}
	return n
}

func (s *slot) add(pfn mem.PFN, kind chunk.Kind) {
	s.chunk.Extents = chunk.AppendPage(s.chunk.Extents, pfn, kind)
}
