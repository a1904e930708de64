package kdumpfile_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// exampleDump writes the dump of FORMAT.md: frames 1 to 4 are RAM; 1, 3 and 4 are
// planned; 1 is all zero, 3 does not come, 4 is filled with 'c'.
func exampleDump(t *testing.T, seal bool) []byte {
	t.Helper()
	h := &kdumpfile.Header{
		Utsname: uts.Name{Sysname: "Linux", Nodename: "db7", Release: "6.1.0", Version: "#1 SMP", Machine: "x86_64", Domainname: "(none)"},
		Time:    time.Unix(1763870240, 0), PageSize: 4096, MaxPFN: 5, NrCPUs: 1,
		PhysBase: 0x1000000, DumpLevel: 31, Status: uint32(kdumpfile.Zstd),
		RAM: []mem.Range{{Start: 0x1000, End: 0x5000}},
	}
	f := &memFile{}
	w, err := kdumpfile.Create(f, h, seq([]mem.Extent{{Start: 1, Count: 1}, {Start: 3, Count: 2}}))
	if err != nil {
		t.Fatal(err)
	}
	// A zstd frame by hand (RFC 8878): magic, descriptor (single segment, content
	// size of two bytes), content size less 256, one block of 4096 times 'c'.
	stored := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0x0f, 0x03, 0x80, 0x00, 'c'}
	at := w.Layout().FirstPage()
	if _, err := f.WriteAt(stored, at); err != nil {
		t.Fatal(err)
	}
	d := kdumpfile.PageDesc{Offset: at, Size: uint32(len(stored)), Flags: uint32(kdumpfile.Zstd)}
	if err := w.PutPages(mem.Extent{Start: 4, Count: 1}, []kdumpfile.PageDesc{d}); err != nil {
		t.Fatal(err)
	}
	if err := w.PutZero(mem.Extent{Start: 1, Count: 1}); err != nil {
		t.Fatal(err)
	}
	if seal {
		if err := w.SealPartial(); err != nil {
			t.Fatal(err)
		}
	}
	return f.b
}

// hexdump shows b as FORMAT.md does: lines of 16 bytes, those of zeros left out.
func hexdump(b []byte) string {
	var out strings.Builder
	for off := 0; off < len(b); off += 16 {
		line := b[off:min(off+16, len(b))]
		if bytes.Count(line, []byte{0}) < len(line) {
			fmt.Fprintf(&out, "%08x  % x\n", off, line)
		}
	}
	return out.String()
}

// TestFormatDocument compares the examples of FORMAT.md with what a Writer writes,
// and reads them.
func TestFormatDocument(t *testing.T) {
	doc, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(doc), "```hex\n")
	if len(blocks) != 3 {
		t.Fatalf("%d hex examples, want 2", len(blocks)-1)
	}
	for i, seal := range []bool{false, true} {
		text, _, _ := strings.Cut(blocks[i+1], "```")
		b := exampleDump(t, seal)
		if i == 1 { // only the bitmap and the descriptors, which change
			b = append(make([]byte, 0x3000), b[0x3000:0x5000]...)
		}
		if got := hexdump(b); got != text {
			t.Errorf("example %d: the Writer writes\n%s", i+1, got)
		}
	}
	whole := parseHex(t, strings.SplitN(blocks[1], "```", 2)[0])
	r := open(t, whole)
	page := make([]byte, 4096)
	if err := r.ReadPage(page, 4); err != nil || bytes.Count(page, []byte{'c'}) != len(page) {
		t.Errorf("page 4 of the example: %v", err)
	}
}

func parseHex(t *testing.T, text string) []byte {
	t.Helper()
	var b []byte
	for line := range strings.Lines(text) {
		at, rest, _ := strings.Cut(strings.TrimSpace(line), "  ")
		off, err := strconv.ParseUint(at, 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		data, err := hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, make([]byte, int(off)-len(b))...)
		b = append(b, data...)
	}
	return b
}
