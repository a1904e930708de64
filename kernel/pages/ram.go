package pages

import (
	"cmp"
	"slices"

	"github.com/corehaul/corehaul/mem"
)

// ramFrames turns ranges of addresses into runs of page frames, ascending and disjoint. Frames in
// which a range only begins or ends are included, because what the dump has of them belongs to it.
// (makedumpfile keeps the frame in which a range ends if its bitmaps lie in a file,
// create_1st_bitmap_file. It drops the frame if they lie in memory, create_bitmap_from_memhole.)
// The second result names the frames of which no range has the beginning.
func ramFrames(ranges []mem.Range, pageShift uint) (frames []mem.Extent, headless []mem.PFN) {
	sorted := slices.DeleteFunc(slices.Clone(ranges), func(r mem.Range) bool { return r.Len() == 0 })
	slices.SortFunc(sorted, func(a, b mem.Range) int { return cmp.Compare(a.Start, b.Start) })
	var covered mem.PhysAddr // the end of the ranges so far
	for _, r := range sorted {
		e := r.Pages(pageShift)
		if start := e.Start.Addr(pageShift); r.Start != start && start >= covered {
			headless = append(headless, e.Start)
		}
		frames = mem.AppendExtent(frames, e)
		covered = max(covered, r.End)
	}
	return frames, headless
}
