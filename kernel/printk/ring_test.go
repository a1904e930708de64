package printk_test

import (
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/kerneltest"
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
