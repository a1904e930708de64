package flattened

import (
	"encoding/json"
	"errors"
	"slices"
	"sort"
)

// Coverage is the set of written bytes of a file. The zero Coverage is empty. It is not safe for concurrent use.
type Coverage struct {
	spans []span // sorted, disjoint, not touching
}

// span is the bytes [off, end).
type span struct{ off, end int64 }

// Add adds n bytes at off and returns how many of them are new. off and n must not be negative.
func (c *Coverage) Add(off, n int64) (fresh int64) {
	if n <= 0 {
		return 0
	}
	s := span{off, off + n}
	// The spans i to j-1 overlap or touch the new one.
	i := sort.Search(len(c.spans), func(i int) bool { return c.spans[i].end >= off })
	j, had := i, int64(0)
	for ; j < len(c.spans) && c.spans[j].off <= off+n; j++ {
		old := c.spans[j]
		had += old.end - old.off
		s.off, s.end = min(s.off, old.off), max(s.end, old.end)
	}
	c.spans = slices.Replace(c.spans, i, j, s)
	return s.end - s.off - had
}

// Cut removes the bytes from off on.
func (c *Coverage) Cut(off int64) {
	i := sort.Search(len(c.spans), func(i int) bool { return c.spans[i].end > off })
	if i < len(c.spans) && c.spans[i].off < off {
		c.spans[i].end = off
		i++
	}
	c.spans = c.spans[:i]
}

// Has reports whether c contains all n bytes at off.
func (c *Coverage) Has(off, n int64) bool { return n <= 0 || c.From(off) >= n }

// From returns how many bytes from off on are in c without a gap.
func (c *Coverage) From(off int64) int64 {
	i := sort.Search(len(c.spans), func(i int) bool { return c.spans[i].end > off })
	if i == len(c.spans) || c.spans[i].off > off {
		return 0
	}
	return c.spans[i].end - off
}

// Next returns the offset of the first byte of c at or behind off; ok is false if there is none.
func (c *Coverage) Next(off int64) (at int64, ok bool) {
	i := sort.Search(len(c.spans), func(i int) bool { return c.spans[i].end > off })
	if i == len(c.spans) {
		return 0, false
	}
	return max(off, c.spans[i].off), true
}

// Bytes returns how many bytes are in c.
func (c *Coverage) Bytes() (n int64) {
	for _, s := range c.spans {
		n += s.end - s.off
	}
	return n
}

// Spans returns the number of pieces that c consists of.
func (c *Coverage) Spans() int { return len(c.spans) }

// End returns the end of the last byte; 0 if c is empty.
func (c *Coverage) End() int64 {
	if len(c.spans) == 0 {
		return 0
	}
	return c.spans[len(c.spans)-1].end
}

// MarshalJSON writes the pieces as a list of pairs: first byte and end.
func (c *Coverage) MarshalJSON() ([]byte, error) {
	pairs := make([][2]int64, len(c.spans))
	for i, s := range c.spans {
		pairs[i] = [2]int64{s.off, s.end}
	}
	return json.Marshal(pairs)
}

// UnmarshalJSON reads the form of MarshalJSON.
func (c *Coverage) UnmarshalJSON(b []byte) error {
	var pairs [][2]int64
	if err := json.Unmarshal(b, &pairs); err != nil {
		return err
	}
	*c = Coverage{}
	for _, p := range pairs {
		if p[0] < c.End() || p[1] <= p[0] {
			return errors.New("flattened: ranges out of order")
		}
		c.Add(p[0], p[1]-p[0])
	}
	return nil
}
