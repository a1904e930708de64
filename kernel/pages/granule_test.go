package pages_test

import (
	"debug/elf"
	"fmt"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/mem"
)

// Pages of 16 and 64 KiB have sections, huge pages and free blocks of other sizes.
func TestWalkLargePages(t *testing.T) {
	for _, tc := range []struct{ shift, built, bits int }{
		{14, 36, 36},
		{14, 47, 47},
		{14, 48, 48},
		{14, 52, 52},
		{14, 52, 47},
		{16, 42, 42},
		{16, 48, 48},
		{16, 52, 52},
		{16, 52, 48},
	} {
		for release, types := range map[string]kerneltest.Types{"6.1": kerneltest.Types61, "6.12": kerneltest.Types612} {
			name := fmt.Sprintf("%s, pages of %d KiB, %d of %d bits", release, 1<<tc.shift>>10, tc.bits, tc.built)
			shift := uint(tc.shift)
			m := kerneltest.NewARM64Pages(shift, tc.built, tc.bits)
			huge, orders := uint8(m.LevelShift(1)-shift), uint8(m.Orders())
			list := samplesOf(types, huge, orders)
			every := mem.PFN(1) << max(huge, orders)
			frames := every * mem.PFN(len(list)+1)
			sections := (uint64(frames) + m.SectionPages() - 1) / m.SectionPages()
			mm := m.AddMemmap(types, sections)
			for nr := range sections {
				mm.AddSection(nr)
			}
			at := placeEvery(mm, list, every)
			r := []mem.Range{{End: frames.Addr(shift)}}
			c := classifier(t, m.Config(), r)
			wantWarnings(t, name, c)
			for _, level := range []pages.DumpLevel{0, 1, 2, 4, 8, 16, 31} {
				checkSamples(t, fmt.Sprintf("%s level %d", name, level), walkPages(t, c, level, r, shift), at, level)
			}
		}
	}
}

// What is not understood keeps all RAM, and says so.
func TestWalkUnknownMemoryModelKeepsAll(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(m *kerneltest.Machine, cfg *kernel.Config)
		ram    mem.PhysAddr // more RAM, 64 MiB of it
	}{
		"RAM beyond MAX_PHYSMEM_BITS": {ram: 1 << 46},
		"small MAX_PHYSMEM_BITS": {change: func(m *kerneltest.Machine, _ *kernel.Config) {
			m.Numbers["MAX_PHYSMEM_BITS"] = 24
		}},
		"no MAX_PHYSMEM_BITS at all": {change: func(m *kerneltest.Machine, _ *kernel.Config) {
			m.Numbers["MAX_PHYSMEM_BITS"] = 0
		}},
		"other page size": {change: func(m *kerneltest.Machine, cfg *kernel.Config) {
			cfg.PageSize = 1 << 16
		}},
		"other machine": {change: func(_ *kerneltest.Machine, cfg *kernel.Config) {
			cfg.Machine = elf.EM_PPC64
		}},
		"page tables of something else": {change: func(m *kerneltest.Machine, _ *kernel.Config) {
			m.Map(m.Image(0x200000), 0x30000000, 1<<21, 21)
		}},
		"no mem_section": {change: func(m *kerneltest.Machine, _ *kernel.Config) {
			delete(m.Symbols, "mem_section")
		}},
		"no SECTION_SIZE_BITS on arm64": {change: func(m *kerneltest.Machine, _ *kernel.Config) {
			m.Numbers["SECTION_SIZE_BITS"] = 0
		}},
	} {
		m := kerneltest.NewX86(4)
		mm := m.AddMemmap(kerneltest.Types61, 1)
		mm.AddSection(0)
		place(mm, samples(kerneltest.Types61))
		r := ram(0, kerneltest.PagesPerSection)
		if tc.ram != 0 {
			r = append(r, mem.Range{Start: tc.ram, End: tc.ram + 64<<20})
		}
		cfg := m.Config()
		if tc.change != nil {
			tc.change(m, &cfg)
		}
		k, err := kernel.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		c := classifier(t, cfg, r)
		if n := len(excludedFrames(walkPages(t, c, pages.MaxLevel, r, k.PageShift()))); n != 0 {
			t.Errorf("%s: %d frames excluded", name, n)
		}
		if w := strings.Join(c.Warnings(), "\n"); !strings.Contains(w, "no page can be excluded") {
			t.Errorf("%s: nobody is told: %q", name, w)
		}
	}
}

// RAM that the memory map does not describe is kept, and the rest is sorted.
func TestWalkKeepsRAMWithoutStructPages(t *testing.T) {
	const n = kerneltest.PagesPerSection
	for name, change := range map[string]func(m *kerneltest.Machine, mm *kerneltest.Memmap){
		"no section":         func(*kerneltest.Machine, *kerneltest.Memmap) {},
		"section of nothing": func(_ *kerneltest.Machine, mm *kerneltest.Memmap) { mm.SetSection(1, 3) },
		"beyond the table": func(m *kerneltest.Machine, mm *kerneltest.Memmap) {
			mm.SetSection(256, uint64(kerneltest.Vmemmap)|3) // what lies behind the table is something else
			m.Lengths["mem_section"] = 1
		},
	} {
		m := kerneltest.NewX86(4)
		mm := m.AddMemmap(kerneltest.Types61, 600)
		mm.AddSection(0)
		for pfn := range mem.PFN(n) {
			mm.Set(pfn, kerneltest.Page{Flags: lru, Mapping: file})
		}
		bare := mem.PFN(n)
		if name == "beyond the table" {
			bare = 256 * n
		}
		change(m, mm)
		r := ram(0, n, bare, bare+100)
		c := classifier(t, m.Config(), r)
		runs := walk(t, c, pages.MaxLevel, r)
		if got := find(t, runs, bare); got.Excluded || got.Class != pages.Kernel || got.Count != 100 {
			t.Errorf("%s: got %+v", name, got)
		}
		if got := find(t, runs, 0); !got.Excluded || got.Count != n {
			t.Errorf("%s: the page cache is %+v", name, got)
		}
		wantWarnings(t, name, c, fmt.Sprintf("100 page frames of RAM, the first of them pfn %d", bare))
	}
}
