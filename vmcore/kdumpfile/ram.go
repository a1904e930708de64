package kdumpfile

import (
	"cmp"
	"slices"
	"sort"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// maxRanges bounds the RAM ranges: far above any memory map, and low enough for a hostile bitmap of alternating bits.
const maxRanges = 1 << 20

// findHoles finds out how much of the bitmaps is in the file.
func (k *Reader) findHoles() {
	n := bitmapBytes(k.h.MaxPFN)
	if have := vmcore.BytesFrom(k.r, k.size, k.h.l.Bitmap1, n); have < n {
		k.info.Lackf("of its 1st bitmap, %d bytes at offset %d, there are %d bytes up to the first gap: RAM without pages is not known behind it", n, k.h.l.Bitmap1, have)
	}
	have := vmcore.BytesFrom(k.r, k.size, k.h.l.Bitmap2, n)
	k.known = min(mem.PFN(have)*8, k.h.MaxPFN) //nolint:gosec // not negative
	if have < n {
		k.info.Lackf("of its 2nd bitmap, %d bytes at offset %d, there are %d bytes up to the first gap: which pages it should have from pfn %d on is not known, and none of them counts as missing",
			n, k.h.l.Bitmap2, have, k.known)
	}
}

// scanRAM sets RAM to the runs of the 1st bitmap and all pages of the file.
func (k *Reader) scanRAM() error {
	for e, err := range k.runs(k.h.l.Bitmap1, k.h.MaxPFN, nil) {
		if err == nil {
			err = k.addRAM(e)
		}
		if err != nil {
			return err
		}
	}
	known := k.ram
	for e, err := range k.runs(k.h.l.Bitmap2, k.known, nil) {
		if err == nil && !covers(known, k.bytes(e)) {
			err = k.addRAM(e)
		}
		if err != nil {
			return err
		}
	}
	if len(k.ram) > len(known) {
		k.info.Warnf("%d runs of pages are in the 2nd bitmap and not, or not wholly, in the 1st; they count as RAM", len(k.ram)-len(known))
		k.ram = unite(k.ram)
	}
	return nil
}

func (k *Reader) addRAM(e mem.Extent) error {
	if len(k.ram) == maxRanges {
		return vmcore.Corruptf("1st bitmap", k.h.l.Bitmap1, "more than %d ranges of memory", maxRanges)
	}
	k.ram = append(k.ram, k.bytes(e))
	return nil
}

func (k *Reader) bytes(e mem.Extent) mem.Range {
	return mem.Range{Start: e.Start.Addr(k.shift), End: e.End().Addr(k.shift)}
}

// covers reports whether one of the sorted ranges contains all of r.
func covers(ranges []mem.Range, r mem.Range) bool {
	i := sort.Search(len(ranges), func(i int) bool { return ranges[i].End > r.Start })
	return i < len(ranges) && ranges[i].Start <= r.Start && ranges[i].End >= r.End
}

// unite sorts ranges and merges those that overlap or touch.
func unite(ranges []mem.Range) []mem.Range {
	slices.SortFunc(ranges, func(a, b mem.Range) int { return cmp.Compare(a.Start, b.Start) })
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out) - 1; n >= 0 && r.Start <= out[n].End {
			out[n].End = max(out[n].End, r.End)
			continue
		}
		out = append(out, r)
	}
	return out
}
