package dumpdir

import (
	"maps"
	"math/bits"
	"slices"

	"github.com/corehaul/corehaul/chunk"
)

const (
	seqWords   = 64            // of one block
	seqsPerBlk = seqWords * 64 // 4096 numbers, 512 bytes
)

// seqSet is a set of chunk numbers. Its memory grows with the number of elements, whatever they are: a peer must send
// chunks to make it large.
type seqSet struct {
	blocks map[uint64]*[seqWords]uint64
	n      uint64
}

func newSeqSet() *seqSet { return &seqSet{blocks: make(map[uint64]*[seqWords]uint64)} }

func (s *seqSet) has(q uint64) bool {
	b := s.blocks[q/seqsPerBlk]
	return b != nil && b[q/64%seqWords]>>(q%64)&1 != 0
}

// add adds q and reports whether it is new.
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

// ranges returns the set as ascending ranges.
func (s *seqSet) ranges() []chunk.SeqRange {
	var out []chunk.SeqRange
	for _, k := range slices.Sorted(maps.Keys(s.blocks)) {
		for i, w := range s.blocks[k] {
			base := k*seqsPerBlk + uint64(i)*64
			for w != 0 {
				lo := bits.TrailingZeros64(w)
				n := bits.TrailingZeros64(^(w >> lo))
				first, end := base+uint64(lo), base+uint64(lo+n)
				out = appendSeqs(out, chunk.SeqRange{First: first, Last: end - 1})
				if lo+n == 64 {
					break
				}
				w = w >> (lo + n) << (lo + n)
			}
		}
	}
	return out
}

// appendSeqs appends r to ascending ranges and merges it with the last one if they touch.
func appendSeqs(out []chunk.SeqRange, r chunk.SeqRange) []chunk.SeqRange {
	if n := len(out); n > 0 && out[n-1].Last+1 == r.First {
		out[n-1].Last = r.Last
		return out
	}
	return append(out, r)
}
