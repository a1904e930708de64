// Package chunk holds the types for chunks that the wire and the journal of a dump directory share: chunk numbers,
// and the runs of page frames in a chunk.
//
// A chunk is a group of planned pages under one number, counted from 0. The packages protocol and dumpdir say what a
// chunk may hold and how it is encoded. All types are plain values.
package chunk

import "github.com/corehaul/corehaul/mem"

// Kind says what a chunk carries for the pages of an extent. The values are those of the wire.
type Kind uint8

// Kinds of extents.
const (
	// Data pages have contents in the chunk.
	Data Kind = 0
	// Zero pages are all zero bytes and have no contents in the chunk.
	Zero Kind = 1
)

// String returns "data" or "zero".
func (k Kind) String() string {
	if k == Zero {
		return "zero"
	}
	return "data"
}

// Extent is a run of page frames of one kind.
type Extent struct {
	mem.Extent
	Kind Kind
}

// AppendPage appends frame pfn to extents. It extends the last extent if that has the same kind and ends at pfn.
func AppendPage(extents []Extent, pfn mem.PFN, kind Kind) []Extent {
	if n := len(extents) - 1; n >= 0 && extents[n].Kind == kind && extents[n].End() == pfn {
		extents[n].Count++
		return extents
	}
	return append(extents, Extent{Extent: mem.Extent{Start: pfn, Count: 1}, Kind: kind})
}

// SeqRange is a run of chunk numbers, both ends included. Last is at least First, so a SeqRange is never empty.
type SeqRange struct{ First, Last uint64 }

// Contains reports whether number seq lies in r.
func (r SeqRange) Contains(seq uint64) bool { return seq >= r.First && seq <= r.Last }
