package elfcore

import (
	"io"
	"iter"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// Contradictions says where PT_LOADs contradict each other, and how the File treats it: one line each, only the first
// ones. It is empty for a file of New.
func (f *File) Contradictions() []string { return f.odd }

// HeldPages implements vmcore.Holder: it compares the PT_LOADs with what the file has.
func (f *File) HeldPages() iter.Seq2[mem.Extent, error] {
	return func(yield func(mem.Extent, error) bool) {
		next, stop := iter.Pull(f.missing())
		defer stop()
		gap, more := next()
		for e, err := range f.Pages() {
			if err != nil {
				yield(e, err)
				return
			}
			for e.Count > 0 {
				for more && gap.End() <= e.Start {
					gap, more = next()
				}
				if !more {
					gap = mem.Extent{Start: e.End()}
				}
				held, rest := e.SplitAt(gap.Start)
				if held.Count > 0 && !yield(held, nil) {
					return
				}
				_, e = rest.SplitAt(gap.End())
			}
		}
	}
}

// missing yields the frames with bytes that are not in the file, ascending. Neighbouring runs may share a frame.
func (f *File) missing() iter.Seq[mem.Extent] {
	return func(yield func(mem.Extent) bool) {
		for _, r := range f.runs {
			end := r.offset(r.end)
			for at := r.off; at < end; {
				at += vmcore.BytesFrom(f.r, f.size, at, end-at)
				if at >= end {
					break
				}
				stop, ok := vmcore.NextBytes(f.r, f.size, at)
				if !ok || stop > end {
					stop = end
				}
				lost := mem.Range{Start: r.start + mem.PhysAddr(at-r.off), End: r.start + mem.PhysAddr(stop-r.off)} //nolint:gosec // not negative
				if !yield(lost.Pages(f.shift)) {
					return
				}
				at = stop
			}
		}
	}
}

// findHoles records that bytes of the PT_LOADs are missing.
func (f *File) findHoles() {
	for _, r := range f.runs {
		n := r.offset(r.end) - r.off
		if have := vmcore.BytesFrom(f.r, f.size, r.off, n); have < n {
			f.info.Lackf("of %#x bytes of the PT_LOAD for paddr %v at offset %#x, %#x are there up to the first gap, in a file of %#x bytes", n, r.start, r.off, have, f.size)
			return // HeldPages knows the others
		}
	}
}

// notesGone reports whether notes lie within the file but were never written.
func (h *header) notesGone(r io.ReaderAt, size int64) bool {
	for _, s := range h.notes {
		n := s.FileEnd() - s.Offset
		if s.Offset <= size-n && !vmcore.HasBytes(r, size, s.Offset, n) {
			return true
		}
	}
	return false
}
