package flattened_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// rec is a record; size, when not 0, is what its header says.
type rec struct {
	off  int64
	data []byte
	size int64
}

// stream builds a flattened stream by makedumpfile's IMPLEMENTATION, without its end marker.
func stream(recs ...rec) []byte {
	b := make([]byte, 4096)
	copy(b, "makedumpfile")
	b[23], b[31] = 1, 1
	for _, r := range recs {
		size := r.size
		if size == 0 {
			size = int64(len(r.data))
		}
		b = header(b, r.off, size)
		b = append(b, r.data...)
	}
	return b
}

func header(b []byte, off, size int64) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	return binary.BigEndian.AppendUint64(b, uint64(size))
}

func ended(b []byte) []byte { return header(b, -1, -1) }

// apply does what a reader of the stream has to end up with.
func apply(recs []rec) []byte {
	var b []byte
	for _, r := range recs {
		if end := int(r.off) + len(r.data); end > len(b) {
			b = append(b, make([]byte, end-len(b))...)
		}
		copy(b[r.off:], r.data)
	}
	return b
}

// sparse is an io.WriterAt in memory.
type sparse struct{ b []byte }

func (s *sparse) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(s.b) {
		s.b = append(s.b, make([]byte, end-len(s.b))...)
	}
	return copy(s.b[off:], p), nil
}

func newFile(tb testing.TB, b []byte) *flattened.File {
	tb.Helper()
	f, err := flattened.New(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func readAll(tb testing.TB, f *flattened.File) []byte {
	tb.Helper()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func fill(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n) }

func TestLastWriteWins(t *testing.T) {
	for _, tc := range []struct {
		name string
		recs []rec
		want string
	}{
		{"in order", []rec{{0, []byte("abc"), 0}, {3, []byte("def"), 0}}, "abcdef"},
		{"backwards", []rec{{3, []byte("def"), 0}, {0, []byte("abc"), 0}}, "abcdef"},
		{"hole", []rec{{4, []byte("ef"), 0}, {0, []byte("ab"), 0}}, "ab\x00\x00ef"},
		{"hole at the start", []rec{{2, []byte("c"), 0}}, "\x00\x00c"},
		{"the same place twice", []rec{{0, []byte("abc"), 0}, {0, []byte("xyz"), 0}}, "xyz"},
		{"middle", []rec{{0, []byte("abcdef"), 0}, {2, []byte("XY"), 0}}, "abXYef"},
		{"middle, then all", []rec{{2, []byte("XY"), 0}, {0, []byte("abcdef"), 0}}, "abcdef"},
		{"start", []rec{{0, []byte("abcdef"), 0}, {0, []byte("XY"), 0}}, "XYcdef"},
		{"end", []rec{{0, []byte("abcdef"), 0}, {4, []byte("XYZ"), 0}}, "abcdXYZ"},
		{"end, older", []rec{{4, []byte("XYZ"), 0}, {0, []byte("abcdef"), 0}}, "abcdefZ"},
		{"three deep", []rec{{0, []byte("aaaaaaaa"), 0}, {1, []byte("bbbbbb"), 0}, {2, []byte("cccc"), 0}, {3, []byte("d"), 0}}, "abcdccba"},
		{"under all", []rec{{3, []byte("d"), 0}, {2, []byte("cccc"), 0}, {1, []byte("bbbbbb"), 0}, {0, []byte("aaaaaaaa"), 0}}, "aaaaaaaa"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := ended(stream(tc.recs...))
			f := newFile(t, b)
			if got := readAll(t, f); string(got) != tc.want || f.Damaged() != nil {
				t.Errorf("got %q, want %q, damaged %v", got, tc.want, f.Damaged())
			}
			var s sparse
			st, err := flattened.Reassemble(&s, iotest.OneByteReader(bytes.NewReader(b)))
			if err != nil || string(s.b) != tc.want {
				t.Errorf("Reassemble: got %q, want %q, %v", s.b, tc.want, err)
			}
			if st.Records != uint64(len(tc.recs)) || st.FileSize != int64(len(tc.want)) || st.Stream != int64(len(b)) {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

func TestRandomRecords(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var recs []rec
		for i := range 1 + r.IntN(40) {
			recs = append(recs, rec{off: r.Int64N(300), data: fill(byte(i+1), 1+r.IntN(100))})
		}
		want := apply(recs)
		f := newFile(t, ended(stream(recs...)))
		if got := readAll(t, f); !bytes.Equal(got, want) {
			t.Fatalf("seed %d: got %v, want %v", seed, got, want)
		}
		for range 50 {
			off := r.IntN(len(want))
			p := make([]byte, 1+r.IntN(200))
			n, err := f.ReadAt(p, int64(off))
			if !bytes.Equal(p[:n], want[off:min(off+len(p), len(want))]) || n < len(p) != errors.Is(err, io.EOF) {
				t.Fatalf("seed %d: %d bytes at %d: %d, %v", seed, len(p), off, n, err)
			}
		}
	}
}

func TestBrokenStreams(t *testing.T) {
	good := stream(rec{off: 0, data: []byte("abcdef")}, rec{off: 6, data: []byte("ghi")})
	for _, tc := range []struct {
		name    string
		b       []byte
		newErr  error // of New; nil: opened
		damaged bool
		reErr   error
		want    string
	}{
		{"whole", ended(good), nil, false, nil, "abcdefghi"},
		{"rubbish after the end", append(ended(good), "rubbish"...), nil, false, nil, "abcdefghi"},
		{"no end marker", good, nil, true, vmcore.ErrTruncated, "abcdefghi"},
		{"cut in the payload", good[:len(good)-1], nil, true, vmcore.ErrTruncated, "abcdefgh"},
		{"cut before the payload", good[:len(good)-3], nil, true, vmcore.ErrTruncated, "abcdef"},
		{"cut in a record header", good[:len(good)-5], nil, true, vmcore.ErrTruncated, "abcdef"},
		{"cut in the end marker", ended(good)[:len(good)+15], nil, true, vmcore.ErrTruncated, "abcdefghi"},
		{"cut in the header", good[:4095], vmcore.ErrUnknownFormat, false, vmcore.ErrTruncated, ""},
		{"empty", nil, vmcore.ErrUnknownFormat, false, vmcore.ErrTruncated, ""},
		{"other signature", fill('x', 5000), vmcore.ErrUnknownFormat, false, vmcore.ErrUnknownFormat, ""},
		{"other type", func() []byte { b := slices.Clone(good); b[23] = 2; return b }(), vmcore.ErrUnsupported, false, vmcore.ErrUnsupported, ""},
		{"other version", func() []byte { b := slices.Clone(good); b[24] = 1; return b }(), vmcore.ErrUnsupported, false, vmcore.ErrUnsupported, ""},
		{"size 0", header(slices.Clone(good), 5, 0), vmcore.ErrCorrupt, false, vmcore.ErrCorrupt, "abcdefghi"},
		{"negative size", header(slices.Clone(good), 5, -2), vmcore.ErrCorrupt, false, vmcore.ErrCorrupt, "abcdefghi"},
		{"negative offset", header(slices.Clone(good), -5, 1), vmcore.ErrCorrupt, false, vmcore.ErrCorrupt, "abcdefghi"},
		{"half an end marker", header(slices.Clone(good), -1, 1), vmcore.ErrCorrupt, false, vmcore.ErrCorrupt, "abcdefghi"},
		{"offset beyond any file", header(slices.Clone(good), 1<<61, 1), vmcore.ErrCorrupt, false, vmcore.ErrCorrupt, "abcdefghi"},
		{"sum overflows", header(slices.Clone(good), 1<<60, 1<<62), vmcore.ErrCorrupt, false, vmcore.ErrCorrupt, "abcdefghi"},
		{"an exabyte announced", header(slices.Clone(good), 9, 1<<59), nil, true, vmcore.ErrTruncated, "abcdefghi"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := flattened.New(bytes.NewReader(tc.b), int64(len(tc.b)))
			switch {
			case !errors.Is(err, tc.newErr):
				t.Errorf("New: got %v, want %v", err, tc.newErr)
			case err == nil:
				if (f.Damaged() != nil) != tc.damaged || tc.damaged && !errors.Is(f.Damaged(), vmcore.ErrTruncated) {
					t.Errorf("damaged: %v", f.Damaged())
				}
				if got := readAll(t, f); string(got) != tc.want {
					t.Errorf("got %q, want %q", got, tc.want)
				}
			}
			var s sparse
			_, err = flattened.Reassemble(&s, bytes.NewReader(tc.b))
			if !errors.Is(err, tc.reErr) || string(s.b) != tc.want {
				t.Errorf("Reassemble: got %q, %v, want %q, %v", s.b, err, tc.want, tc.reErr)
			}
		})
	}
}

func TestReassembleErrors(t *testing.T) {
	boom := errors.New("boom")
	b := stream(rec{off: 0, data: fill('a', 5000)})
	if _, err := flattened.Reassemble(&sparse{}, io.MultiReader(bytes.NewReader(b[:6000]), iotest.ErrReader(boom))); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	if _, err := flattened.Reassemble(fullDisk{boom}, bytes.NewReader(ended(b))); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}

type fullDisk struct{ err error }

func (d fullDisk) WriteAt([]byte, int64) (int, error) { return 0, d.err }

// TestRealStreams reads what makedumpfile wrote.
func TestRealStreams(t *testing.T) {
	for flat, plain := range map[string]string{
		"makedumpfile-1.7.6-x86_64-lzo.flat": "makedumpfile-1.7.6-x86_64-lzo.kdump",
		"makedumpfile-1.7.6-x86_64-elf.flat": "makedumpfile-1.7.6-x86_64.elf",
	} {
		t.Run(flat, func(t *testing.T) {
			b, want := vmcoretest.Sample(t, flat), vmcoretest.Sample(t, plain)
			f := newFile(t, b)
			got := readAll(t, f)
			if f.Damaged() != nil || len(got) < len(want)-4096 || len(got) > len(want) {
				t.Fatalf("%d bytes, want %d, damaged %v", len(got), len(want), f.Damaged())
			}
			if !bytes.Equal(got, want[:len(got)]) || bytes.Count(want[len(got):], []byte{0}) != len(want)-len(got) {
				t.Error("the file inside differs from the one written directly")
			}
			var s sparse
			if _, err := flattened.Reassemble(&s, bytes.NewReader(b)); err != nil || !bytes.Equal(s.b, got) {
				t.Errorf("Reassemble: %v", err)
			}
		})
	}
}

// FuzzFlattened makes sure that both ways of reading agree, and that a stream
// written from the result gives it back.
func FuzzFlattened(f *testing.F) {
	for _, name := range vmcoretest.Samples(f, ".flat") {
		f.Add(vmcoretest.Sample(f, name)[4096:])
	}
	f.Add(ended(stream(rec{off: 3, data: []byte("abc")}, rec{off: 0, data: []byte("defgh")}))[4096:])
	head := stream()
	f.Fuzz(func(t *testing.T, recs []byte) {
		b := append(slices.Clone(head), recs...)
		file, err := flattened.New(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if file != nil || !errors.Is(err, vmcore.ErrCorrupt) {
				t.Fatalf("%v, %v", file, err)
			}
			return
		}
		if file.Size() > 1<<22 {
			return // too large for memory
		}
		got := readAll(t, file)
		var s sparse
		_, err = flattened.Reassemble(&s, bytes.NewReader(b))
		if (err != nil) != (file.Damaged() != nil) || err != nil && !errors.Is(err, vmcore.ErrTruncated) {
			t.Fatalf("Reassemble: %v, damaged %v", err, file.Damaged())
		}
		if !bytes.Equal(s.b, got) {
			t.Fatal("the two ways of reading differ")
		}
		if len(got) == 0 {
			return
		}
		if again := readAll(t, newFile(t, ended(stream(rec{data: got})))); !bytes.Equal(again, got) {
			t.Fatal("written again it differs")
		}
	})
}
