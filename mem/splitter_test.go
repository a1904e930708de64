package mem_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/corehaul/corehaul/mem"
)

func TestSplitter(t *testing.T) {
	s := mem.NewSplitter([]mem.Extent{{Start: 2, Count: 2}, {Start: 6, Count: 1}, {Start: 20, Count: 10}})
	var got []string
	for _, e := range []mem.Extent{{Start: 0, Count: 3}, {Start: 3, Count: 4}, {Start: 8, Count: 1}, {Start: 22, Count: 12}, {Start: 40, Count: 1}} {
		for part, marked := range s.Split(e) {
			got = append(got, fmt.Sprint(part, " ", marked))
		}
	}
	want := []string{
		"pfn 0..1 false", "pfn 2 true", "pfn 3 true", "pfn 4..5 false", "pfn 6 true", "pfn 8 false",
		"pfn 22..29 true", "pfn 30..33 false", "pfn 40 false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSplitterStops(t *testing.T) {
	s := mem.NewSplitter([]mem.Extent{{Start: 2, Count: 2}})
	for part := range s.Split(mem.Extent{Count: 9}) {
		if part != (mem.Extent{Count: 2}) {
			t.Errorf("got %v", part)
		}
		break
	}
	for part, marked := range s.Split(mem.Extent{Start: 2, Count: 1}) {
		if part != (mem.Extent{Start: 2, Count: 1}) || !marked {
			t.Errorf("after a stop: %v, %v", part, marked)
		}
	}
	var none mem.Splitter
	for part, marked := range none.Split(mem.Extent{Start: 5, Count: 3}) {
		if part != (mem.Extent{Start: 5, Count: 3}) || marked {
			t.Errorf("nothing marked: %v, %v", part, marked)
		}
	}
}
