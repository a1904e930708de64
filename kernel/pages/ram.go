package pages

import (
	"cmp"
	"slices"

	"github.com/corehaul/corehaul/mem"
)

// ramFrames turns ranges of addresses into runs of page frames, ascending and
// disjoint. A frame that RAM covers only in part is a frame of RAM; the second
// result names the frames of which RAM does not cover the beginning.
func ramFrames(ranges []mem.Range, pageShift uint) (frames []mem.Extent, headless []mem.PFN) {
	sorted := slices.DeleteFunc(slices.Clone(ranges), func(r mem.Range) bool { return r.Len() == 0 })
	slices.SortFunc(sorted, func(a, b mem.Range) int { return cmp.Compare(a.Start, b.Start) })
	var covered mem.PhysAddr // the end of the last range
	for _, r := range sorted {
		e := r.Pages(pageShift)
		pageStart := e.Start.Addr(pageShift)
		if r.Start != pageStart && (len(frames) == 0 || pageStart >= covered) {
			headless = append(headless, e.Start)
		}
		covered = max(covered, r.End)
		frames = appendExtent(frames, e)
	}
	return frames, headless
}

// appendExtent adds e, which starts no earlier than the last of list, and joins
// both where they touch or overlap.
func appendExtent(list []mem.Extent, e mem.Extent) []mem.Extent {
	if len(list) == 0 || list[len(list)-1].End() < e.Start {
		return append(list, e)
	}
	last := &list[len(list)-1]
	if e.End() > last.End() {
		last.Count = uint64(e.End() - last.Start)
	}
	return list
}
