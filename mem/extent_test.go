package mem

import (
	"math"
	"slices"
	"testing"
)

// top is the highest frame number that there is.
const top = PFN(math.MaxUint64)

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

func TestExtentIntersect(t *testing.T) {
	e := Extent{Start: 10, Count: 10}
	for _, tc := range []struct {
		name string
		a, b Extent
		want Extent
	}{
		{"the same", e, e, e},
		{"inside", e, Extent{Start: 12, Count: 3}, Extent{Start: 12, Count: 3}},
		{"the beginning", e, Extent{Start: 0, Count: 12}, Extent{Start: 10, Count: 2}},
		{"the end", e, Extent{Start: 19, Count: 5}, Extent{Start: 19, Count: 1}},
		{"below, touching", e, Extent{Start: 5, Count: 5}, Extent{}},
		{"above, touching", e, Extent{Start: 20, Count: 5}, Extent{}},
		{"far apart", e, Extent{Start: 1 << 60, Count: 5}, Extent{}},
		{"nothing", e, Extent{Start: 12}, Extent{}},
		{"nothing twice", Extent{}, Extent{}, Extent{}},
		{"one wraps", e, Extent{Start: top, Count: 20}, Extent{}},
		{"one wraps over the other", e, Extent{Start: 12, Count: math.MaxUint64}, Extent{Start: 12, Count: 8}},
		{"the highest frame", Extent{Start: top - 1, Count: 2}, Extent{Start: top, Count: 1}, Extent{Start: top, Count: 1}},
		{"all frames but the last", e, Extent{Count: math.MaxUint64}, e},
	} {
		if got := tc.a.Intersect(tc.b); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
		if got := tc.b.Intersect(tc.a); got != tc.want {
			t.Errorf("%s, the other way round: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestExtentDrop(t *testing.T) {
	e := Extent{Start: 10, Count: 10}
	for _, tc := range []struct {
		name string
		e    Extent
		n    uint64
		want Extent
	}{
		{"nothing", e, 0, e},
		{"some", e, 4, Extent{Start: 14, Count: 6}},
		{"all but one", e, 9, Extent{Start: 19, Count: 1}},
		{"all", e, 10, Extent{Start: 20}},
		{"more than all", e, math.MaxUint64, Extent{Start: 20}},
		{"of nothing", Extent{Start: 7}, 3, Extent{Start: 7}},
		{"up to the highest frame", Extent{Start: top - 1, Count: 2}, 1, Extent{Start: top, Count: 1}},
	} {
		if got := tc.e.Drop(tc.n); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestExtentSplitAt(t *testing.T) {
	e := Extent{Start: 10, Count: 10}
	for _, tc := range []struct {
		name        string
		e           Extent
		at          PFN
		below, rest Extent
	}{
		{"inside", e, 13, Extent{Start: 10, Count: 3}, Extent{Start: 13, Count: 7}},
		{"at the first", e, 10, Extent{Start: 10}, e},
		{"below", e, 2, Extent{Start: 10}, e},
		{"at the last", e, 19, Extent{Start: 10, Count: 9}, Extent{Start: 19, Count: 1}},
		{"at the end", e, 20, e, Extent{Start: 20}},
		{"above", e, top, e, Extent{Start: 20}},
		{"nothing", Extent{Start: 7}, 7, Extent{Start: 7}, Extent{Start: 7}},
		{"the highest frame", Extent{Start: top - 1, Count: 2}, top, Extent{Start: top - 1, Count: 1}, Extent{Start: top, Count: 1}},
		{"one that wraps", Extent{Start: top, Count: 5}, 2, Extent{Start: top}, Extent{Start: top, Count: 5}},
	} {
		below, rest := tc.e.SplitAt(tc.at)
		if below != tc.below || rest != tc.rest {
			t.Errorf("%s: got %v and %v, want %v and %v", tc.name, below, rest, tc.below, tc.rest)
		}
	}
}

func TestBetween(t *testing.T) {
	for _, tc := range []struct {
		start, end PFN
		want       Extent
	}{
		{3, 7, Extent{Start: 3, Count: 4}},
		{3, 3, Extent{Start: 3}},
		{7, 3, Extent{Start: 7}},
		{0, top, Extent{Count: math.MaxUint64}},
		{top, 0, Extent{Start: top}},
	} {
		if got := Between(tc.start, tc.end); got != tc.want {
			t.Errorf("%d to %d: got %v, want %v", tc.start, tc.end, got, tc.want)
		}
	}
}

func TestAppendExtent(t *testing.T) {
	list := []Extent{{Start: 1, Count: 2}, {Start: 5, Count: 3}}
	for _, tc := range []struct {
		name string
		list []Extent
		e    Extent
		want []Extent
	}{
		{"the first", nil, Extent{Start: 4, Count: 1}, []Extent{{Start: 4, Count: 1}}},
		{"behind a gap", list, Extent{Start: 9, Count: 1}, []Extent{{Start: 1, Count: 2}, {Start: 5, Count: 3}, {Start: 9, Count: 1}}},
		{"touching", list, Extent{Start: 8, Count: 2}, []Extent{{Start: 1, Count: 2}, {Start: 5, Count: 5}}},
		{"overlapping", list, Extent{Start: 6, Count: 5}, []Extent{{Start: 1, Count: 2}, {Start: 5, Count: 6}}},
		{"inside", list, Extent{Start: 6, Count: 1}, list},
	} {
		if got := AppendExtent(slices.Clone(tc.list), tc.e); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}
