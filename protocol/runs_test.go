package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/mem"
)

func run(start, count uint64, tier uint8) Run {
	return Run{mem.Extent{Start: mem.PFN(start), Count: count}, tier}
}

func TestRunsRoundTrip(t *testing.T) {
	huge := Params{PageSize: 4096, MaxPFN: MaxPFN, Level: 0}
	for _, tc := range []struct {
		name      string
		params    Params
		add, want []Run
	}{
		{"none", huge, nil, nil},
		{"one page", huge, []Run{run(0, 1, 0)}, []Run{run(0, 1, 0)}},
		{"joined", huge, []Run{run(3, 2, 1), run(5, 4, 1), run(9, 0, 1), run(9, 1, 1)}, []Run{run(3, 7, 1)}},
		{"touching tiers", huge, []Run{run(3, 2, 1), run(5, 4, 2)}, []Run{run(3, 2, 1), run(5, 4, 2)}},
		{"all of the largest machine", huge, []Run{run(0, MaxPFN, 7)}, []Run{run(0, MaxPFN, 7)}},
		{"last page of the largest machine", huge, []Run{run(MaxPFN-1, 1, 0)}, []Run{run(MaxPFN-1, 1, 0)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			coded := encodeRuns(t, tc.params, tc.add)
			d := NewRunDecoder(tc.params)
			var got []Run
			if err := d.Decode(coded, func(r Run) error { got = append(got, r); return nil }); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if sum := sumOf(t, tc.params, tc.add); d.Sum() != sum {
				t.Errorf("decoder sums %+v, encoder %+v", d.Sum(), sum)
			}
		})
	}
}

// TestRunsInPieces sends far more runs than fit one piece and decodes them piece by piece.
func TestRunsInPieces(t *testing.T) {
	p := Params{PageSize: 4096, MaxPFN: MaxPFN}
	const n = 200_000
	var pieces [][]byte
	e := NewRunEncoder(p, func(piece []byte) error {
		pieces = append(pieces, bytes.Clone(piece))
		return nil
	})
	for i := range uint64(n) {
		if err := e.Add(run(i*300, 1+i%290, uint8(i%MaxTiers))); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := e.Close()
	if err != nil {
		t.Fatal(err)
	}
	d, count := NewRunDecoder(p), uint64(0)
	for _, piece := range pieces {
		if len(piece) > PieceBytes {
			t.Fatalf("piece of %d bytes", len(piece))
		}
		err := d.Decode(piece, func(r Run) error {
			if want := run(count*300, 1+count%290, uint8(count%MaxTiers)); r != want {
				t.Fatalf("run %d: got %v, want %v", count, r, want)
			}
			count++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(pieces) < 10 || count != n || d.Sum() != sum {
		t.Errorf("%d pieces, %d runs, sums equal: %v", len(pieces), count, d.Sum() == sum)
	}
}

func TestRunEncoderRefuses(t *testing.T) {
	p := Params{PageSize: 4096, MaxPFN: 100}
	for _, tc := range []struct {
		name string
		runs []Run
		want Code
	}{
		{"beyond max_pfn", []Run{run(90, 11, 0)}, CodeBadMessage},
		{"wraps", []Run{run(2, math.MaxUint64, 0)}, CodeBadMessage},
		{"joined beyond 64 bits", []Run{run(0, 2, 0), run(2, math.MaxUint64, 0)}, CodeBadMessage},
		{"overlaps", []Run{run(10, 5, 0), run(14, 2, 0)}, CodeBadMessage},
		{"descends", []Run{run(10, 5, 0), run(2, 1, 1)}, CodeBadMessage},
		{"tier too high", []Run{run(10, 5, 8)}, CodeTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := NewRunEncoder(p, func([]byte) error { t.Error("a piece was sent"); return nil })
			for _, r := range tc.runs {
				_ = e.Add(r) // Close repeats the error
			}
			sum, err := e.Close()
			if !errors.Is(err, tc.want) || sum != (PlanSum{}) {
				t.Errorf("got %v, want %s and no sums", err, tc.want)
			}
			if again := e.Add(run(99, 1, 0)); again != err { //nolint:errorlint // the very same one
				t.Errorf("the error does not stick: %v", again)
			}
		})
	}
}

func TestRunEncoderStopsWithEmit(t *testing.T) {
	gone := errors.New("gone")
	e := NewRunEncoder(Params{PageSize: 4096, MaxPFN: MaxPFN}, func([]byte) error { return gone })
	var err error
	for i := uint64(0); err == nil && i < 1<<20; i++ {
		err = e.Add(run(2*i, 1, 0))
	}
	if !errors.Is(err, gone) {
		t.Errorf("got %v, want the error of emit", err)
	}
}

func TestRunDecoderRefuses(t *testing.T) {
	p := Params{PageSize: 4096, MaxPFN: 100}
	numbers := func(vs ...uint64) []byte {
		var b []byte
		for _, v := range vs {
			b = binary.AppendUvarint(b, v)
		}
		return b
	}
	for _, tc := range []struct {
		name  string
		piece []byte
		want  Code
	}{
		{"cut after the gap", numbers(1), CodeBadMessage},
		{"cut in a number", []byte{1, 0x88}, CodeBadMessage},
		{"longer form", []byte{0x81, 0, 8}, CodeBadMessage},
		{"more than 64 bits", bytes.Repeat([]byte{0xff}, 11), CodeBadMessage},
		{"empty run", numbers(1, 0), CodeBadMessage},
		{"gap beyond any machine", numbers(MaxPFN+1, 8), CodeTooLarge},
		{"length beyond any machine", numbers(0, (MaxPFN+1)<<3), CodeTooLarge},
		{"beyond max_pfn", numbers(100, 8), CodeBadMessage},
		{"continues the last", numbers(1, 8, 0, 8), CodeBadMessage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := NewRunDecoder(p)
			err := d.Decode(tc.piece, func(Run) error { return nil })
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if again := d.Decode(numbers(50, 8), func(Run) error { return nil }); again == nil {
				t.Error("the error does not stick")
			}
		})
	}
}

func TestPlanHashDependsOn(t *testing.T) {
	p := Params{PageSize: 4096, MaxPFN: 100, Level: 31}
	runs := []Run{run(1, 5, 0), run(10, 3, 1)}
	base := sumOf(t, p, runs).Hash
	for name, other := range map[string]PlanHash{
		"page size": sumOf(t, Params{PageSize: 16384, MaxPFN: 100, Level: 31}, runs).Hash,
		"max_pfn":   sumOf(t, Params{PageSize: 4096, MaxPFN: 101, Level: 31}, runs).Hash,
		"level":     sumOf(t, Params{PageSize: 4096, MaxPFN: 100, Level: 1}, runs).Hash,
		"pages":     sumOf(t, p, []Run{run(1, 5, 0), run(10, 4, 1)}).Hash,
		"tier":      sumOf(t, p, []Run{run(1, 5, 0), run(10, 3, 2)}).Hash,
	} {
		if other == base {
			t.Errorf("another %s, the same hash", name)
		}
	}
	if again := sumOf(t, p, []Run{run(1, 2, 0), run(3, 3, 0), run(10, 3, 1)}).Hash; again != base {
		t.Errorf("the same pages in other runs: got %s, want %s", again, base)
	}
}

func TestPlanSumCheck(t *testing.T) {
	sum := sumOf(t, exampleParams, exampleRuns())
	good := PlanEnd{Hash: sum.Hash, Runs: 3, Kept: 7, Chunks: 2, Tiers: []Tier{{Pages: 6, Chunks: 1}, {Pages: 1, Chunks: 1}}}
	if err := sum.Check(&good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*PlanEnd){
		"hash":     func(p *PlanEnd) { p.Hash[3]++ },
		"runs":     func(p *PlanEnd) { p.Runs++ },
		"kept":     func(p *PlanEnd) { p.Kept-- },
		"chunks":   func(p *PlanEnd) { p.Chunks++ },
		"tiers":    func(p *PlanEnd) { p.Tiers = []Tier{{Pages: 5, Chunks: 1}, {Pages: 2, Chunks: 1}} },
		"one tier": func(p *PlanEnd) { p.Tiers = []Tier{{Pages: 7, Chunks: 2}} },
	} {
		end := good
		change(&end)
		if err := sum.Check(&end); !errors.Is(err, CodePlanMismatch) {
			t.Errorf("another %s: got %v, want %s", name, err, CodePlanMismatch)
		}
	}
}

func TestCutter(t *testing.T) {
	var got [][]mem.Extent
	c := NewCutter(64<<10, func(extents []mem.Extent) error { // 16 pages a chunk
		got = append(got, slices.Clone(extents))
		return nil
	})
	for _, e := range []mem.Extent{{Start: 2, Count: 3}, {Start: 5, Count: 2}, {Start: 10, Count: 40}, {Start: 100, Count: 1}} {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // a second Flush has nothing to do
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	want := [][]mem.Extent{
		{{Start: 2, Count: 5}, {Start: 10, Count: 11}},
		{{Start: 21, Count: 16}},
		{{Start: 37, Count: 13}, {Start: 100, Count: 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCutterStops(t *testing.T) {
	gone := errors.New("gone")
	c := NewCutter(4096, func([]mem.Extent) error { return gone })
	if err := c.Add(mem.Extent{Count: MaxPFN}); !errors.Is(err, gone) {
		t.Errorf("got %v, want the error of emit", err)
	}
}
