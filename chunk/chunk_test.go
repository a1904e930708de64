package chunk_test

import (
	"math"
	"slices"
	"testing"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
)

func extent(start, count uint64, kind chunk.Kind) chunk.Extent {
	return chunk.Extent{Extent: mem.Extent{Start: mem.PFN(start), Count: count}, Kind: kind}
}

func TestAppendPage(t *testing.T) {
	for name, tc := range map[string]struct {
		extents []chunk.Extent
		pfn     mem.PFN
		kind    chunk.Kind
		want    []chunk.Extent
	}{
		"the first":        {nil, 7, chunk.Zero, []chunk.Extent{extent(7, 1, chunk.Zero)}},
		"the next":         {[]chunk.Extent{extent(3, 4, chunk.Data)}, 7, chunk.Data, []chunk.Extent{extent(3, 5, chunk.Data)}},
		"of another kind":  {[]chunk.Extent{extent(3, 4, chunk.Data)}, 7, chunk.Zero, []chunk.Extent{extent(3, 4, chunk.Data), extent(7, 1, chunk.Zero)}},
		"behind a gap":     {[]chunk.Extent{extent(3, 4, chunk.Data)}, 8, chunk.Data, []chunk.Extent{extent(3, 4, chunk.Data), extent(8, 1, chunk.Data)}},
		"after the lowest": {[]chunk.Extent{extent(0, 1, chunk.Data)}, 1, chunk.Data, []chunk.Extent{extent(0, 2, chunk.Data)}},
	} {
		if got := chunk.AppendPage(slices.Clone(tc.extents), tc.pfn, tc.kind); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestSeqRangeContains(t *testing.T) {
	for _, tc := range []struct {
		r    chunk.SeqRange
		seq  uint64
		want bool
	}{
		{chunk.SeqRange{First: 3, Last: 5}, 2, false},
		{chunk.SeqRange{First: 3, Last: 5}, 3, true},
		{chunk.SeqRange{First: 3, Last: 5}, 5, true},
		{chunk.SeqRange{First: 3, Last: 5}, 6, false},
		{chunk.SeqRange{}, 0, true},
		{chunk.SeqRange{Last: math.MaxUint64}, math.MaxUint64, true},
	} {
		if got := tc.r.Contains(tc.seq); got != tc.want {
			t.Errorf("%v, %d: %v", tc.r, tc.seq, got)
		}
	}
}

func TestKindString(t *testing.T) {
	if chunk.Data.String() != "data" || chunk.Zero.String() != "zero" {
		t.Error(chunk.Data, chunk.Zero)
	}
}
