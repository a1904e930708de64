package mem

import (
	"math"
	"testing"
)

func TestRangePages(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    Range
		want Extent
	}{
		{"partial first and last page", Range{0x1234, 0x3001}, Extent{Start: 1, Count: 3}},
		{"exact pages", Range{0x1000, 0x3000}, Extent{Start: 1, Count: 2}},
		{"one byte", Range{0xfff, 0x1000}, Extent{Start: 0, Count: 1}},
		{"reversed", Range{0x3000, 0x1000}, Extent{}},
		{"to the end of the address space", Range{math.MaxUint64 - 1, math.MaxUint64}, Extent{Start: 1<<52 - 1, Count: 1}},
	} {
		if got := tc.r.Pages(12); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}
