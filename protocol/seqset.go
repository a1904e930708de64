package protocol

import (
	"encoding/binary"
	"encoding/json"
	"iter"
	"math"
	"slices"
	"sort"

	"github.com/corehaul/corehaul/chunk"
)

// SeqSet is a set of chunk numbers as sorted ranges with gaps between them. It has at most MaxSeqRanges ranges, so
// its memory is bounded. The zero SeqSet is empty. Copies share memory.
type SeqSet struct {
	ranges []chunk.SeqRange
}

// Add adds the numbers first to last. It changes nothing and returns CodeTooLarge if there would be too many ranges,
// or CodeBadMessage if last is before first.
func (s *SeqSet) Add(first, last uint64) error {
	if last < first {
		return Errorf(CodeBadMessage, "chunks %d to %d: reversed", first, last)
	}
	// lo is the first range that touches or follows first, hi the first one wholly after last.
	lo := sort.Search(len(s.ranges), func(i int) bool { return first == 0 || s.ranges[i].Last >= first-1 })
	hi := sort.Search(len(s.ranges), func(i int) bool {
		return last != math.MaxUint64 && s.ranges[i].First > last+1
	})
	if lo == hi {
		if len(s.ranges) >= MaxSeqRanges {
			return Errorf(CodeTooLarge, "more than %d ranges of chunks", MaxSeqRanges)
		}
		s.ranges = slices.Insert(s.ranges, lo, chunk.SeqRange{First: first, Last: last})
		return nil
	}
	merged := chunk.SeqRange{First: min(first, s.ranges[lo].First), Last: max(last, s.ranges[hi-1].Last)}
	s.ranges = slices.Replace(s.ranges, lo, hi, merged)
	return nil
}

// Contains reports whether seq is in the set.
func (s *SeqSet) Contains(seq uint64) bool {
	i := sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Last >= seq })
	return i < len(s.ranges) && s.ranges[i].First <= seq
}

// Len returns the number of chunks in the set.
func (s *SeqSet) Len() uint64 {
	n := uint64(0)
	for _, r := range s.ranges {
		n += r.Last - r.First + 1
	}
	return n
}

// Empty reports whether the set is empty.
func (s *SeqSet) Empty() bool { return len(s.ranges) == 0 }

// End returns one past the highest number in the set, or 0 if it is empty.
func (s *SeqSet) End() uint64 {
	if s.Empty() {
		return 0
	}
	return s.ranges[len(s.ranges)-1].Last + 1
}

// Reset empties the set and keeps its memory.
func (s *SeqSet) Reset() { s.ranges = s.ranges[:0] }

// Ranges yields the ranges in ascending order.
func (s *SeqSet) Ranges() iter.Seq[chunk.SeqRange] { return slices.Values(s.ranges) }

// MarshalJSON writes an array of [first, last] pairs.
func (s SeqSet) MarshalJSON() ([]byte, error) {
	pairs := make([][2]uint64, len(s.ranges))
	for i, r := range s.ranges {
		pairs[i] = [2]uint64{r.First, r.Last}
	}
	return json.Marshal(pairs)
}

// UnmarshalJSON takes pairs that ascend with gaps between them.
func (s *SeqSet) UnmarshalJSON(p []byte) error {
	var pairs [][]uint64
	if err := json.Unmarshal(p, &pairs); err != nil {
		return err
	}
	if len(pairs) > MaxSeqRanges {
		return Errorf(CodeTooLarge, "%d ranges of chunks above %d", len(pairs), MaxSeqRanges)
	}
	set := SeqSet{ranges: make([]chunk.SeqRange, 0, len(pairs))}
	for _, pair := range pairs {
		if len(pair) != 2 || !set.follow(pair[0], pair[1]) {
			return Errorf(CodeBadMessage, "range of chunks %v: not a pair, not ascending or no gap", pair)
		}
	}
	*s = set
	return nil
}

// follow appends a range behind all others, with a gap between, up to maxSeq.
func (s *SeqSet) follow(first, last uint64) bool {
	if last < first || last > maxSeq || (len(s.ranges) > 0 && first <= s.End()) {
		return false
	}
	s.ranges = append(s.ranges, chunk.SeqRange{First: first, Last: last})
	return true
}

// appendBinary appends the number of ranges, then for each range the gap to the one before (minus one, the smallest
// gap) and its length minus one.
func (s *SeqSet) appendBinary(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s.ranges)))
	next := uint64(0)
	for _, r := range s.ranges {
		dst = binary.AppendUvarint(dst, r.First-next)
		dst = binary.AppendUvarint(dst, r.Last-r.First)
		next = r.Last + 2
	}
	return dst
}

// decodeSeqSet is the inverse of appendBinary.
func decodeSeqSet(c *cursor) SeqSet {
	var s SeqSet
	n := c.upTo(MaxSeqRanges, "number of ranges")
	if room := uint64(max(c.left(), 0)) / 2; n > room {
		c.fail(CodeBadMessage, "%d ranges in %d bytes", n, c.left())
	}
	next := uint64(0)
	for i := uint64(0); i < n && c.err == nil; i++ {
		first := next + c.upTo(maxSeq, "gap")
		last := first + c.upTo(maxSeq, "length")
		if c.err == nil && !s.follow(first, last) {
			c.fail(CodeTooLarge, "chunk number %d above %d", last, uint64(maxSeq))
		}
		next = last + 2
	}
	if c.err != nil {
		return SeqSet{}
	}
	return s
}
