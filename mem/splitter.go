package mem

import "iter"

// Splitter separates marked frames from others. The extents of successive calls must ascend. The zero Splitter has no
// marked frames.
type Splitter struct {
	marked []Extent // without those before the last extent
}

// NewSplitter returns a Splitter for marked extents, which ascend and do not overlap. It keeps the slice.
func NewSplitter(marked []Extent) *Splitter { return &Splitter{marked: marked} }

// Split yields the parts of e in order, each with a flag that says whether its frames are marked.
func (s *Splitter) Split(e Extent) iter.Seq2[Extent, bool] {
	return func(yield func(Extent, bool) bool) {
		for e.Count > 0 {
			for len(s.marked) > 0 && s.marked[0].End() <= e.Start {
				s.marked = s.marked[1:]
			}
			end, marked := e.End(), false
			if len(s.marked) > 0 {
				if m := s.marked[0]; m.Contains(e.Start) {
					end, marked = m.End(), true
				} else {
					end = m.Start
				}
			}
			var part Extent
			if part, e = e.SplitAt(end); !yield(part, marked) {
				return
			}
		}
	}
}
