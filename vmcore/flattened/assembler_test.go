package flattened_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// model is a file in memory and which bytes of it were written: what an Assembler has to end up with.
type model struct {
	b    []byte
	have []bool
	end  bool
	bad  bool
}

// assemble does all of a stream at once, by the rules of the format.
func assemble(b []byte, limit int64) (m model) {
	b = b[4096:]
	for len(b) >= 16 {
		off, size := int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))
		if off == -1 && size == -1 {
			m.end = true
			return m
		}
		if off < 0 || size <= 0 || off > limit || size > limit-off {
			m.bad = true
			return m
		}
		b = b[16:]
		p := b[:min(size, int64(len(b)))]
		if need := int(off) + len(p); len(p) > 0 && need > len(m.b) {
			m.b = append(m.b, make([]byte, need-len(m.b))...)
			m.have = append(m.have, make([]bool, need-len(m.have))...)
		}
		for i := range p {
			m.b[int(off)+i], m.have[int(off)+i] = p[i], true
		}
		b = b[len(p):]
	}
	return m
}

// compare holds an Assembler against the model.
func compare(t *testing.T, m model, a *flattened.Assembler, s *sparse, err error) {
	t.Helper()
	if !bytes.Equal(s.b, m.b) {
		t.Fatalf("%d bytes differ from %d", len(s.b), len(m.b))
	}
	if a.Done() != m.end || errors.Is(err, vmcore.ErrCorrupt) != m.bad || (a.Close() == nil) != m.end {
		t.Fatalf("done %v, want %v; %v, %v", a.Done(), m.end, err, a.Close())
	}
	c, n := a.Coverage(), int64(0)
	for i, have := range m.have {
		if c.Has(int64(i), 1) != have {
			t.Fatalf("byte %d: has %v, want %v", i, !have, have)
		}
		if have {
			n++
		}
	}
	if c.Bytes() != n || c.End() != int64(len(m.b)) {
		t.Fatalf("%d bytes up to %d, want %d up to %d", c.Bytes(), c.End(), n, len(m.b))
	}
}

const modelLimit = 1 << 16

// FuzzAssembler writes a stream in pieces and compares what comes out with the model.
func FuzzAssembler(f *testing.F) {
	for _, name := range vmcoretest.Samples(f, ".flat") {
		b := vmcoretest.Sample(f, name)[4096:]
		f.Add(b[:min(len(b), 4096)], uint64(1))
	}
	f.Add(ended(stream(rec{off: 3, data: []byte("abc")}, rec{off: 0, data: []byte("defgh")}, rec{off: 20, data: []byte("x")}))[4096:], uint64(3))
	f.Add(header(nil, 1<<62, 1<<62), uint64(5))
	head := stream()
	f.Fuzz(func(t *testing.T, recs []byte, seed uint64) {
		b := append(bytes.Clone(head), recs...)
		var s sparse
		a := flattened.NewAssembler(&s, flattened.Limits{FileSize: modelLimit})
		r := rand.New(rand.NewPCG(seed, 7))
		var err error
		for p := b; len(p) > 0 && err == nil; {
			n := 1 + r.IntN(len(p))
			_, err = a.Write(p[:n])
			p = p[n:]
		}
		compare(t, assemble(b, modelLimit), a, &s, err)
	})
}

// TestAssemblerLimits sends what no stream may.
func TestAssemblerLimits(t *testing.T) {
	again := rec{off: 0, data: fill('a', 100)}
	for _, tc := range []struct {
		name string
		b    []byte
		want error
	}{
		{"offset beyond the limit", header(stream(), 1<<40, 10), vmcore.ErrCorrupt},
		{"size beyond the limit", header(stream(), 0, 1<<62), vmcore.ErrCorrupt},
		{"up to the limit", ended(stream(rec{off: 9990, data: fill('a', 10)})), nil},
		{"one more", ended(stream(rec{off: 9991, data: fill('a', 10)})), vmcore.ErrCorrupt},
		{"rewritten", ended(stream(again, again, again)), nil},
		{"rewritten too often", ended(stream(again, again, again, again)), vmcore.ErrCorrupt},
		{"pieces", ended(stream(rec{off: 0, data: fill('a', 1)}, rec{off: 2, data: fill('a', 1)}, rec{off: 4, data: fill('a', 1)})), nil},
		{"too many pieces", ended(stream(rec{off: 0, data: fill('a', 1)}, rec{off: 2, data: fill('a', 1)}, rec{off: 4, data: fill('a', 1)}, rec{off: 6, data: fill('a', 1)})), vmcore.ErrCorrupt},
		{"padding behind the end", append(ended(stream(again)), make([]byte, 512)...), nil},
		{"an endless stream behind the end", append(ended(stream(again)), make([]byte, 2<<20)...), vmcore.ErrCorrupt},
		{"no stream", make([]byte, 4096), vmcore.ErrUnknownFormat},
	} {
		a := flattened.NewAssembler(&sparse{}, flattened.Limits{FileSize: 10000, Rewritten: 200, Pieces: 3})
		_, err := a.Write(tc.b)
		if !errors.Is(err, tc.want) || !errors.Is(a.Close(), tc.want) {
			t.Errorf("%s: got %v, %v, want %v", tc.name, err, a.Close(), tc.want)
		}
		if _, again := a.Write([]byte{0}); tc.want != nil && !errors.Is(again, tc.want) {
			t.Errorf("%s: after the error: %v", tc.name, again)
		}
	}
}

// TestCoverageJSON keeps a coverage over a restart.
func TestCoverageJSON(t *testing.T) {
	var c, d flattened.Coverage
	for _, off := range []int64{100, 0, 50, 10} {
		c.Add(off, 10)
	}
	b, err := json.Marshal(&c)
	if want := "[[0,20],[50,60],[100,110]]"; err != nil || string(b) != want {
		t.Fatalf("got %s, %v, want %s", b, err, want)
	}
	if err := json.Unmarshal(b, &d); err != nil || d.Bytes() != c.Bytes() || d.From(5) != 15 || d.From(20) != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{"[[5,5]]", "[[0,10],[5,20]]", "[[9,1]]", "{}", "[[-1,5]]"} {
		if err := json.Unmarshal([]byte(bad), &d); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// TestCoverageCut cuts a coverage in a gap, in a piece, and at its ends.
func TestCoverageCut(t *testing.T) {
	for off, want := range map[int64]string{0: "[]", 5: "[[0,5]]", 20: "[[0,20]]", 30: "[[0,20]]", 51: "[[0,20],[50,51]]", 60: "[[0,20],[50,60]]", 99: "[[0,20],[50,60]]"} {
		var c flattened.Coverage
		c.Add(0, 20)
		c.Add(50, 10)
		c.Cut(off)
		if b, err := json.Marshal(&c); err != nil || string(b) != want {
			t.Errorf("cut at %d: %s, %v, want %s", off, b, err, want)
		}
	}
}
