package printk_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/printk"
)

var update = flag.Bool("update", false, "write the golden files from what is printed now")

const (
	realDescs  = 16
	realHeader = 4 + 4 + 8 + 8
	realInfos  = realHeader + realDescs*kerneltest.RingDescSize
	realText   = realInfos + realDescs*kerneltest.RingInfoSize
)

// realRing reads a file of testdata, which README.md there describes.
func realRing(tb testing.TB, name string) kerneltest.RingImage {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	if len(b) < realText {
		tb.Fatalf("%s has %d bytes", name, len(b))
	}
	return kerneltest.RingImage{
		CountBits: binary.LittleEndian.Uint32(b), SizeBits: binary.LittleEndian.Uint32(b[4:]),
		HeadID: binary.LittleEndian.Uint64(b[8:]), TailID: binary.LittleEndian.Uint64(b[16:]),
		Descs: b[realHeader:realInfos], Infos: b[realInfos:realText], Text: b[realText:],
	}
}

func realRings(tb testing.TB) []string {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", "*.ring"))
	if err != nil || len(names) == 0 {
		tb.Fatalf("no rings in testdata: %v", err)
	}
	return names
}

// TestRealRings prints parts of the logs of real kernels. The golden files are
// what crash prints of the whole dumps at that place.
func TestRealRings(t *testing.T) {
	for _, name := range realRings(t) {
		m := kerneltest.NewX86(4)
		m.InstallRing(realRing(t, name))
		got, err := dump(t, m)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		golden := strings.TrimSuffix(name, ".ring") + ".golden"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func FuzzRing(f *testing.F) {
	for _, name := range realRings(f) {
		r := realRing(f, name)
		f.Add(r.CountBits, r.SizeBits, r.HeadID, r.TailID, r.Descs, r.Infos, r.Text)
		f.Add(r.CountBits, r.SizeBits, r.TailID, r.HeadID, r.Descs, r.Infos, r.Text)
		f.Add(uint32(26), uint32(31), r.HeadID, r.TailID, r.Descs, r.Infos, r.Text)
	}
	r := kerneltest.NewRing(4, 8)
	for i := range 30 {
		r.Add(uint64(i)*1e9, strings.Repeat("text\n", i%5))
	}
	f.Add(r.CountBits, r.SizeBits, r.HeadID, r.TailID, r.Descs, r.Infos, r.Text)
	f.Add(uint32(0), uint32(0), uint64(0), uint64(0), []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, countBits, sizeBits uint32, head, tail uint64, descs, infos, text []byte) {
		if countBits > 12 && countBits <= 26 {
			countBits = 12 // more steps find no more
		}
		m := kerneltest.NewX86(4)
		m.InstallRing(kerneltest.RingImage{
			CountBits: countBits, SizeBits: sizeBits, HeadID: head, TailID: tail, Descs: descs, Infos: infos, Text: text,
		})
		got, err := dump(t, m)
		// Each descriptor prints at most one record of less than 64 KiB, with 15
		// to 24 bytes for the time stamp and for each newline.
		if most := len(descs) / kerneltest.RingDescSize * 25 << 16; len(got) > most+4096*25 {
			t.Errorf("%d bytes from %d descriptors", len(got), len(descs)/kerneltest.RingDescSize)
		}
		if countBits > 26 && (err == nil || got != "") {
			t.Errorf("2^%d descriptors give %q, %v", countBits, got, err)
		}
	})
}

// TestRingExactFit reads a record that ends with the ring: since 6.18 it lies there, and before that at the start.
func TestRingExactFit(t *testing.T) {
	for _, kernel618 := range []bool{false, true} {
		r := kerneltest.NewRing(3, 8)
		r.ExactFit = kernel618
		for i := range 40 {
			r.Add(0, strings.Repeat(string(rune('a'+i%26)), 24)) // 32 bytes with the id: 8 fill the ring
			got, err := ringDump(t, r)
			want := 1
			if i > 8 {
				want = 6
			}
			if n := strings.Count(got, "\n"); err != nil || n < want || strings.Contains(got, "\x00") {
				t.Errorf("6.18 %v, %d records: got %q, %v", kernel618, i+1, got, err)
			}
		}
	}
}

// TestRingNested has records that lie in each other, which would make a log of a hundred times its memory.
func TestRingNested(t *testing.T) {
	const size, length = 1 << 13, 4000
	r := kerneltest.NewRing(9, 13)
	for range 400 {
		r.Add(0, "x")
	}
	for i := range uint64(400) {
		id := (r.TailID + 1 + i) & (1<<62 - 1)
		desc := r.Descs[id&(1<<9-1)*kerneltest.RingDescSize:]
		binary.LittleEndian.PutUint64(desc[8:], 8*i)
		binary.LittleEndian.PutUint64(desc[16:], 8*i+8+length)
		binary.LittleEndian.PutUint64(r.Text[8*i:], id)
		binary.LittleEndian.PutUint16(r.Infos[id&(1<<9-1)*kerneltest.RingInfoSize+16:], length)
	}
	got, err := ringDump(t, r)
	if corrupt := new(printk.CorruptError); !errors.As(err, &corrupt) || len(got) > size+3*20 || len(got) < length {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
