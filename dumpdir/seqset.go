package dumpdir

import (
	"maps"
	"math/bits"
	"slices"
)

// SeqRange is a run of chunk numbers, Count of them from Start on.
type SeqRange struct {
	Start, Count uint64
}

// End returns the number after the last one of r.
func (r SeqRange) End() uint64 { return r.Start + r.Count }

const (
	seqWords   = 64            // of one block
	seqsPerBlk = seqWords * 64 // 4096 numbers, 512 bytes
)

// seqSet is a set of chunk numbers. Memory grows with the numbers that are in it,
// whatever they are: a peer cannot make it large without sending chunks.
type seqSet struct {
	blocks map[uint64]*[seqWords]uint64
	n      uint64
}

func newSeqSet() *seqSet { return &seqSet{blocks: make(map[uint64]*[seqWords]uint64)} }

func (s *seqSet) has(q uint64) bool {
	b := s.blocks[q/seqsPerBlk]
	return b != nil && b[q/64%seqWords]>>(q%64)&1 != 0
}

// add puts q into the set and reports whether it was not there.
func (s *seqSet) add(q uint64) bool {
	b := s.blocks[q/seqsPerBlk]
	if b == nil {
		b = new([seqWords]uint64)
		s.blocks[q/seqsPerBlk] = b
	}
	w, bit := &b[q/64%seqWords], uint64(1)<<(q%64)
	if *w&bit != 0 {
		return false
	}
	*w |= bit
	s.n++
	return true
}

// ranges returns the set as ascending runs.
func (s *seqSet) ranges() []SeqRange {
	var out []SeqRange
	for _, k := range slices.Sorted(maps.Keys(s.blocks)) {
		for i, w := range s.blocks[k] {
			base := k*seqsPerBlk + uint64(i)*64
			for w != 0 {
				lo := bits.TrailingZeros64(w)
				n := bits.TrailingZeros64(^(w >> lo))
				out = appendSeqs(out, SeqRange{base + uint64(lo), uint64(n)}) //nolint:gosec // below 65
				if lo+n == 64 {
					break
				}
				w = w >> (lo + n) << (lo + n)
			}
		}
	}
	return out
}

// appendSeqs appends r to ascending ranges, joined to the last one where they touch.
func appendSeqs(out []SeqRange, r SeqRange) []SeqRange {
	if n := len(out); n > 0 && out[n-1].End() == r.Start {
		out[n-1].Count += r.Count
		return out
	}
	return append(out, r)
}
