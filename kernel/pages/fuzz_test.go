package pages_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/mem"
)

// FuzzWalk changes one value of VMCOREINFO, one struct page, and one entry of
// mem_section. Whatever they say, the walk ends, covers RAM once, and excludes
// nothing at level 0 that it keeps at level 31.
func FuzzWalk(f *testing.F) {
	keys := keysOf(fuzzMachine().Info)
	f.Add(uint16(0), uint64(0), []byte{}, uint64(0), uint8(31))
	f.Add(uint16(9), uint64(1<<40), kerneltest.Page{Type: kerneltest.Types61.Buddy, Private: 10}.Bytes(), uint64(0), uint8(31))
	f.Add(uint16(20), uint64(200), kerneltest.Page{Flags: lru | kerneltest.FlagHead, Mapping: anon}.Bytes(), uint64(3), uint8(8))
	f.Add(uint16(31), uint64(3), kerneltest.Page{Flags: kerneltest.FlagHWPoison}.Bytes(), ^uint64(0), uint8(0))
	for _, name := range realNames(f) {
		b, err := os.ReadFile(filepath.Join("testdata", name+".memmap"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint16(0xffff), uint64(0), b, uint64(0), uint8(31))
	}
	for i := range keys {
		f.Add(uint16(i), ^uint64(0), []byte{}, uint64(kerneltest.Vmemmap)|3, uint8(17))
	}
	f.Fuzz(func(t *testing.T, key uint16, value uint64, page []byte, section uint64, level uint8) {
		m := fuzzMachine()
		if section != 0 {
			m.WriteVirt(m.Image(0x3000), kerneltest.Uint64(section))
		}
		if len(page) > 0 {
			m.Write(fuzzMap+64*kerneltest.StructPage, page[:min(len(page), 4096)])
		}
		if int(key) < len(keys) {
			change(m.Info, keys[key], value)
		}
		r := ram(0, 1024)
		c := classifier(t, m.Config(), r)
		all := excludedFrames(walk(t, c, pages.MaxLevel, r))
		walk(t, c, pages.DumpLevel(level%32), r)
		for pfn := range excludedFrames(walk(t, c, 0, r)) {
			if !all[pfn] {
				t.Errorf("level 0 excludes frame %d, level 31 does not", pfn)
			}
		}
	})
}

// fuzzMap is where the struct pages of a fuzzMachine lie.
const fuzzMap = mem.PhysAddr(0x30000000)

// fuzzMachine is a machine of one section with plain SPARSEMEM and few struct
// pages: quick to build.
func fuzzMachine() *kerneltest.Machine {
	m := kerneltest.NewX86(4)
	mm := m.AddMemmap(kerneltest.Types61, 1)
	m.Lengths["mem_section"] = 1 << (46 - 27)
	m.Symbols["mem_section"] = uint64(m.Image(0x3000))
	m.WriteVirt(m.Image(0x3000), kerneltest.Uint64(uint64(kerneltest.Vmemmap)|3))
	m.Map(kerneltest.Vmemmap, fuzzMap, 1<<21, 21)
	for i := range mem.PhysAddr(256) {
		m.Write(fuzzMap+i*kerneltest.StructPage, kerneltest.Page{}.Bytes())
	}
	_ = mm
	return m
}

// bigMachine is a machine of 12 TiB without its memory: mem_section is whole, and
// every struct page is made up when read.
type bigMachine struct {
	*kerneltest.Machine
	blocks []byte // struct pages of one block of 4 MiB, all blocks are alike
	reads  int    // bytes of struct pages read
}

const bigMap = mem.PhysAddr(1) << 45

func newBigMachine(bytes uint64, block func(i int) kerneltest.Page) *bigMachine {
	sections := bytes >> kerneltest.SectionBits
	m := &bigMachine{Machine: kerneltest.NewX86(4)}
	mm := m.AddMemmap(kerneltest.Types61, sections)
	size := sections * kerneltest.PagesPerSection * kerneltest.StructPage
	m.Map(kerneltest.Vmemmap, bigMap, size, 30)
	for nr := range sections {
		mm.SetSection(nr, uint64(kerneltest.Vmemmap)|3)
	}
	for i := range 1024 {
		m.blocks = append(m.blocks, block(i).Bytes()...)
	}
	return m
}

func (m *bigMachine) ReadPhys(p []byte, a mem.PhysAddr) error {
	if a < bigMap {
		return m.Machine.ReadPhys(p, a)
	}
	m.reads += len(p)
	for offset := int((a - bigMap) % mem.PhysAddr(len(m.blocks))); len(p) > 0; offset = 0 {
		p = p[copy(p, m.blocks[offset:]):]
	}
	return nil
}

func (m *bigMachine) Config() kernel.Config {
	cfg := m.Machine.Config()
	cfg.Memory = m
	return cfg
}

func freeBlock(i int) kerneltest.Page {
	if i == 0 {
		return kerneltest.Page{Type: kerneltest.Types61.Buddy, Private: 10}
	}
	return kerneltest.Page{}
}

func mixedBlock(i int) kerneltest.Page {
	switch {
	case i%16 == 0:
		return kerneltest.Page{Flags: lru, Mapping: file}
	case i%16 < 8:
		return kerneltest.Page{Flags: lru, Mapping: anon}
	default:
		return kerneltest.Page{Flags: kerneltest.FlagSlab}
	}
}

// A machine of 12 TiB takes no more memory than a small one, and of free blocks
// only a few struct pages are read.
func TestWalkHugeMachine(t *testing.T) {
	const size = 12 << 40
	m := newBigMachine(size, freeBlock)
	r := []mem.Range{{Start: 0, End: size}}
	k, err := kernel.New(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c, err := pages.New(k, r)
	if err != nil {
		t.Fatal(err)
	}
	var excluded uint64
	err = c.Walk(t.Context(), pages.MaxLevel, func(run pages.Run) error {
		if run.Excluded {
			excluded += run.Count
		}
		return nil
	})
	runtime.ReadMemStats(&after)
	if err != nil || excluded != size>>12 || len(c.Warnings()) > 0 {
		t.Errorf("got %d frames excluded, %v, warnings %q", excluded, err, c.Warnings())
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 16<<20 {
		t.Errorf("%d bytes allocated", allocated)
	}
	if limit := size >> 12 * kerneltest.StructPage / 64; m.reads > limit {
		t.Errorf("%d bytes of struct pages read, want at most %d", m.reads, limit)
	}
}

func BenchmarkWalk64GiB(b *testing.B) {
	for name, block := range map[string]func(int) kerneltest.Page{"free": freeBlock, "mixed": mixedBlock} {
		b.Run(name, func(b *testing.B) {
			const size = 64 << 30
			m := newBigMachine(size, block)
			c := classifier(b, m.Config(), []mem.Range{{Start: 0, End: size}})
			b.ReportAllocs()
			for b.Loop() {
				if err := c.Walk(b.Context(), pages.MaxLevel, func(pages.Run) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(size>>12), "ns/frame")
		})
	}
}
