package pages

import (
	"cmp"
	"slices"

	"github.com/corehaul/corehaul/mem"
)

// ramFrames converts ranges of addresses to runs of page frames, ascending and disjoint. It includes frames in which
// a range begins or ends. (makedumpfile keeps the frame in which a range ends if its bitmaps lie in a file,
// create_1st_bitmap_file, and drops it if they lie in memory, create_bitmap_from_memhole.) headless lists the frames
// whose first byte is in no range.
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
