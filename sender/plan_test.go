package sender

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

type panicWalker struct{}

func (panicWalker) Walk(context.Context, pages.DumpLevel, func(pages.Run) error) error {
	panic("a bug")
}

// chunkList writes all chunks of a plan down.
func chunkList(t *testing.T, p *Plan) []string {
	t.Helper()
	var list []string
	err := p.each(t.Context(), numTiers, func(tier uint8, seq uint64, extents []mem.Extent) error {
		list = append(list, fmt.Sprint(tier, seq, extents))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPlanCounts(t *testing.T) {
	src, _ := fakeSourceOf(t, 1000)
	p, err := src.Plan(t.Context(), 31)
	if err != nil {
		t.Fatal(err)
	}
	want := protocol.PageCounts{Total: 19499, Kept: 7999, Free: 2000, Cache: 3000, CachePrivate: 2000, User: 2500, HWPoison: 2000}
	if p.Pages != want || p.Sum.Kept != want.Kept {
		t.Errorf("counts %+v, want %+v", p.Pages, want)
	}
}

// TestPlanWithoutCache holds that a plan too large to be kept is the same plan.
func TestPlanWithoutCache(t *testing.T) {
	src, _ := fakeSourceOf(t, 1000)
	cached, err := src.Plan(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := src.plan(t.Context(), 1, 10)
	if err != nil {
		t.Fatal(err)
	}
	if bare.cached() || !cached.cached() || bare.Sum != cached.Sum || bare.Pages != cached.Pages {
		t.Errorf("kept: %v and %v; %+v and %+v", cached.cached(), bare.cached(), cached.Sum, bare.Sum)
	}
	if a, b := chunkList(t, cached), chunkList(t, bare); !slices.Equal(a, b) {
		t.Errorf("chunks %q and %q", a, b)
	}
}

func TestPlanThatMoves(t *testing.T) {
	src, img := fakeSourceOf(t, 1000)
	p, err := src.plan(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	src.pages = &fakeWalker{image: newFakeImage(t, img.ram[0])}
	if err := p.Pieces(t.Context(), func([]byte) error { return nil }); !errors.Is(err, errPlanMoved) {
		t.Errorf("got %v", err)
	}
}

func TestPlanFilterFails(t *testing.T) {
	src, img := fakeSourceOf(t, 1000)
	src.pages = &fakeWalker{image: img, fail: errors.New("mem_section loops")}
	p, err := src.Plan(t.Context(), 31)
	if err != nil {
		t.Fatal(err)
	}
	if p.Sum.Kept != 19499 || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "mem_section loops") {
		t.Errorf("kept %d, warnings %q", p.Sum.Kept, p.Warnings)
	}
}

func TestPlanCancelled(t *testing.T) {
	src, _ := fakeSourceOf(t, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := src.Plan(ctx, 31); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestUnknownKernelKeepsAll(t *testing.T) {
	img := newFakeImage(t, mem.Range{Start: 0x1800, End: 0x3000}, mem.Range{Start: 0x3000, End: 0x4800}, mem.Range{Start: 0x4900, End: 0x9000})
	src, err := NewSource(img)
	if err != nil {
		t.Fatal(err)
	}
	src.pages = nil
	img.info.MaxPFN = 16
	p, err := src.Plan(t.Context(), 31)
	if err != nil {
		t.Fatal(err)
	}
	// Pages 1 to 8; page 4 is in two ranges and counts once.
	if p.Sum.Kept != 8 || p.Pages.Total != 8 {
		t.Errorf("kept %d of %d, want 8", p.Sum.Kept, p.Pages.Total)
	}
}

func TestPagesIn(t *testing.T) {
	src, _ := fakeSourceOf(t, 1000)
	p, err := src.Plan(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var set protocol.SeqSet
	want := uint64(0)
	n := 0
	err = p.each(t.Context(), numTiers, func(_ uint8, seq uint64, extents []mem.Extent) error {
		if n++; n%5 == 0 || n > 60 {
			for _, e := range extents {
				want += e.Count
			}
			return set.Add(seq, seq)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.pagesIn(numTiers, &set); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	if got := p.pagesIn(numTiers, nil); got != p.Sum.Kept {
		t.Errorf("got %d of %d", got, p.Sum.Kept)
	}
}

func TestPresentCuts(t *testing.T) {
	img := newFakeImage(t, mem.Range{Start: 10 << 12, End: 20 << 12}, mem.Range{Start: 30 << 12, End: 40 << 12})
	p := newHeldRuns(img)
	defer p.stop()
	var got []string
	for _, e := range []mem.Extent{{Start: 0, Count: 5}, {Start: 5, Count: 7}, {Start: 13, Count: 20}, {Start: 39, Count: 100}} {
		if err := p.cut(e, func(e mem.Extent) error { got = append(got, e.String()); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if s := strings.Join(got, ", "); s != "pfn 10..11, pfn 13..19, pfn 30..32, pfn 39" {
		t.Errorf("got %s", s)
	}
}
