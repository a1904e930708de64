package pages_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/mem"
)

// realFrames is how many struct pages a file of testdata has.
const realFrames = 64

// realMachine builds a machine with the struct pages of testdata/NAME.memmap, which
// README.md there describes, and returns the text that makedumpfile's bitmaps gave
// for them and the first frame.
func realMachine(tb testing.TB, name string) (m *kerneltest.Machine, golden string, pfn mem.PFN) {
	tb.Helper()
	read := func(suffix string) string {
		b, err := os.ReadFile(filepath.Join("testdata", name+suffix))
		if err != nil {
			tb.Fatal(err)
		}
		return string(b)
	}
	golden = read(".golden")
	if _, err := fmt.Sscanf(golden, "pfn %d\n", &pfn); err != nil {
		tb.Fatal(err)
	}
	info, err := kerneltest.ParseInfo(read(".vmcoreinfo"))
	if err != nil {
		tb.Fatal(err)
	}
	m = kerneltest.NewX86(4)
	m.Add(info)
	structPages := m.Alloc(kerneltest.PageSize)
	m.Write(structPages, []byte(read(".memmap")))
	m.Map(kerneltest.Vmemmap+mem.VirtAddr(pfn)*kerneltest.StructPage, structPages, kerneltest.PageSize, 12)
	m.AddSections(uint64(pfn) / kerneltest.PagesPerSection)
	return m, golden, pfn
}

func realNames(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "*.memmap"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no struct pages in testdata: %v", err)
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = strings.TrimSuffix(filepath.Base(f), ".memmap")
	}
	return names
}

// TestRealStructPages compares what is kept of real frames with makedumpfile.
func TestRealStructPages(t *testing.T) {
	for _, name := range realNames(t) {
		m, golden, pfn := realMachine(t, name)
		r := ram(pfn, pfn+realFrames)
		c := classifier(t, m.Config(), r)
		got := fmt.Sprintf("pfn %d\n", pfn)
		for _, level := range []pages.DumpLevel{0, 1, 2, 4, 8, 16, 23, 31} {
			got += fmt.Sprintf("level %d ", level)
			for _, run := range walk(t, c, level, r) {
				kept := "1"
				if run.Excluded {
					kept = "0"
				}
				got += strings.Repeat(kept, int(run.Count))
			}
			got += "\n"
		}
		if got != golden {
			t.Errorf("%s: got\n%swant\n%s", name, got, golden)
		}
	}
}
