package mem

import (
	"fmt"
	"math/bits"
)

// Extent is a run of Count page frames that begins at Start. The zero Extent is empty.
type Extent struct {
	Start PFN
	Count uint64
}

// End returns one past the last frame of e.
func (e Extent) End() PFN { return e.Start + PFN(e.Count) }

// Contains reports whether frame n lies in e.
func (e Extent) Contains(n PFN) bool { return n >= e.Start && uint64(n-e.Start) < e.Count }

// Valid reports whether e is not empty and lies below limit. It is safe for hostile values: nothing wraps.
func (e Extent) Valid(limit PFN) bool {
	end, carry := bits.Add64(uint64(e.Start), e.Count, 0)
	return e.Count > 0 && carry == 0 && end <= uint64(limit)
}

// Intersect returns the frames that are in both e and o, or the zero Extent. Nothing wraps: frames beyond the highest
// frame number are in no extent.
func (e Extent) Intersect(o Extent) Extent {
	start := max(e.Start, o.Start)
	n := min(e.from(start), o.from(start))
	if n == 0 {
		return Extent{}
	}
	return Extent{Start: start, Count: n}
}

// from returns how many frames of e lie at or above n. n must not be below e.Start.
func (e Extent) from(n PFN) uint64 {
	skipped := uint64(n - e.Start)
	return e.Count - min(e.Count, skipped)
}

// Drop returns e without its first n frames. If e has n frames or fewer, the result is empty and starts at the end of
// e.
func (e Extent) Drop(n uint64) Extent {
	n = min(n, e.Count)
	return Extent{Start: e.Start + PFN(n), Count: e.Count - n}
}

// SplitAt cuts e before frame n: below has the frames below n, rest the others. If one part is empty, below is at the
// start of e, or rest at its end.
func (e Extent) SplitAt(n PFN) (below, rest Extent) {
	if n < e.Start {
		n = e.Start
	}
	rest = e.Drop(uint64(n - e.Start))
	return Extent{Start: e.Start, Count: e.Count - rest.Count}, rest
}

// Between returns the frames of the half-open range [start, end), or an empty extent if end is not above start.
func Between(start, end PFN) Extent {
	return Extent{Start: start, Count: uint64(max(start, end) - start)}
}

// AppendExtent appends e to a list of ascending extents. It merges e with the last extent if they touch or overlap. e
// must not begin before the last extent.
func AppendExtent(list []Extent, e Extent) []Extent {
	n := len(list) - 1
	if n < 0 || list[n].End() < e.Start {
		return append(list, e)
	}
	list[n] = Between(list[n].Start, max(list[n].End(), e.End()))
	return list
}

// String formats e as "pfn 16..31".
func (e Extent) String() string {
	if e.Count == 1 {
		return fmt.Sprintf("pfn %d", uint64(e.Start))
	}
	return fmt.Sprintf("pfn %d..%d", uint64(e.Start), uint64(e.End())-1)
}
