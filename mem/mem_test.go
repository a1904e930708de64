package mem

import (
	"math"
	"testing"
)

func TestExtentValid(t *testing.T) {
	for _, tc := range []struct {
		name  string
		e     Extent
		limit PFN
		want  bool
	}{
		{"empty", Extent{Start: 1}, 10, false},
		{"inside", Extent{Start: 1, Count: 9}, 10, true},
		{"one too many", Extent{Start: 1, Count: 10}, 10, false},
		{"wraps", Extent{Start: math.MaxUint64, Count: 2}, 10, false},
		{"wraps to the limit", Extent{Start: math.MaxUint64 - 1, Count: 12}, 10, false},
	} {
		if got := tc.e.Valid(tc.limit); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestExtentContains(t *testing.T) {
	e := Extent{Start: 4, Count: 3}
	for n, want := range map[PFN]bool{3: false, 4: true, 6: true, 7: false} {
		if got := e.Contains(n); got != want {
			t.Errorf("pfn %d: got %v, want %v", n, got, want)
		}
	}
}

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
