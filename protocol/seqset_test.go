package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/corehaul/corehaul/chunk"
)

func TestSeqSetAdd(t *testing.T) {
	for _, tc := range []struct {
		name string
		add  []chunk.SeqRange
		want []chunk.SeqRange
	}{
		{"one", []chunk.SeqRange{{First: 3, Last: 5}}, []chunk.SeqRange{{First: 3, Last: 5}}},
		{"touching from above", []chunk.SeqRange{{First: 3, Last: 5}, {First: 6, Last: 6}}, []chunk.SeqRange{{First: 3, Last: 6}}},
		{"touching from below", []chunk.SeqRange{{First: 3, Last: 5}, {First: 0, Last: 2}}, []chunk.SeqRange{{First: 0, Last: 5}}},
		{"a gap of one", []chunk.SeqRange{{First: 3, Last: 5}, {First: 7, Last: 7}, {First: 1, Last: 1}}, []chunk.SeqRange{{First: 1, Last: 1}, {First: 3, Last: 5}, {First: 7, Last: 7}}},
		{"closes a gap", []chunk.SeqRange{{First: 1, Last: 1}, {First: 3, Last: 3}, {First: 2, Last: 2}}, []chunk.SeqRange{{First: 1, Last: 3}}},
		{"covers several", []chunk.SeqRange{{First: 2, Last: 2}, {First: 4, Last: 4}, {First: 8, Last: 9}, {First: 1, Last: 8}}, []chunk.SeqRange{{First: 1, Last: 9}}},
		{"inside", []chunk.SeqRange{{First: 1, Last: 9}, {First: 4, Last: 5}}, []chunk.SeqRange{{First: 1, Last: 9}}},
		{"highest number", []chunk.SeqRange{{First: math.MaxUint64, Last: math.MaxUint64}, {First: 0, Last: 0}}, []chunk.SeqRange{{First: 0, Last: 0}, {First: math.MaxUint64, Last: math.MaxUint64}}},
		{"everything", []chunk.SeqRange{{First: 5, Last: 5}, {First: 0, Last: math.MaxUint64}}, []chunk.SeqRange{{First: 0, Last: math.MaxUint64}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s SeqSet
			for _, r := range tc.add {
				if err := s.Add(r.First, r.Last); err != nil {
					t.Fatal(err)
				}
			}
			if got := slices.Collect(s.Ranges()); !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// TestSeqSetModel compares a set with a simple one under random additions.
func TestSeqSetModel(t *testing.T) {
	const limit = 200
	rnd := rand.New(rand.NewPCG(1, 2)) // the same every time
	for round := range 50 {
		var s SeqSet
		model := make(map[uint64]bool)
		for range 60 {
			first := rnd.Uint64N(limit)
			last := min(first+rnd.Uint64N(6), limit-1)
			if err := s.Add(first, last); err != nil {
				t.Fatal(err)
			}
			for n := first; n <= last; n++ {
				model[n] = true
			}
			checkModel(t, &s, model, limit)
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

func checkModel(t *testing.T, s *SeqSet, model map[uint64]bool, limit uint64) {
	t.Helper()
	listed := make(map[uint64]bool)
	for r := range s.Ranges() {
		for n := r.First; n <= r.Last; n++ {
			listed[n] = true
		}
	}
	for n := range limit {
		if s.Contains(n) != model[n] || listed[n] != model[n] {
			t.Errorf("%d: contained %v, in a range %v, want %v", n, s.Contains(n), listed[n], model[n])
		}
	}
	if s.Len() != uint64(len(model)) {
		t.Errorf("got length %d, want %d", s.Len(), len(model))
	}
}

func TestSeqSetIsBounded(t *testing.T) {
	var s SeqSet
	for n := range uint64(MaxSeqRanges) {
		if err := s.Add(2*n, 2*n); err != nil {
			t.Fatal(err)
		}
	}
	err := s.Add(2*MaxSeqRanges, 2*MaxSeqRanges)
	if !errors.Is(err, CodeTooLarge) {
		t.Errorf("one range too many: got %v, want %s", err, CodeTooLarge)
	}
	if err := s.Add(1, 1); err != nil || s.Len() != MaxSeqRanges+1 {
		t.Errorf("an addition that joins ranges: got %v and length %d", err, s.Len())
	}
	if err := s.Add(5, 4); !errors.Is(err, CodeBadMessage) {
		t.Errorf("reversed: got %v, want %s", err, CodeBadMessage)
	}
}

func TestSeqSetReset(t *testing.T) {
	s := setOf(t, 1, 5)
	s.Reset()
	if !s.Empty() || s.End() != 0 || s.Len() != 0 {
		t.Errorf("after Reset: %v", s)
	}
}

func TestSeqSetJSON(t *testing.T) {
	s := setOf(t, 0, 1, 2, 7)
	text, err := json.Marshal(s)
	if err != nil || string(text) != "[[0,2],[7,7]]" {
		t.Fatalf("got %s, %v", text, err)
	}
	var back SeqSet
	if err := json.Unmarshal(text, &back); err != nil || fmt.Sprint(back) != fmt.Sprint(s) {
		t.Errorf("got %v, %v", back, err)
	}
	for _, bad := range []string{
		"[[1]]", "[[1,2,3]]", "[[2,1]]", "[[1,2],[3,4]]", "[[5,6],[1,2]]", "[[-1,2]]", "[[0,1099511627776]]", `["a"]`, "{}", "[[1.5,2]]",
	} {
		got := setOf(t, 3)
		if err := json.Unmarshal([]byte(bad), &got); err == nil || !got.Contains(3) || got.Len() != 1 {
			t.Errorf("%s: got %v, error %v; want an error and the set as it was", bad, got, err)
		}
	}
}
