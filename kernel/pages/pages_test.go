package pages_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/mem"
)

// sample is what a frame holds, and what should be said of it.
type sample struct {
	name    string
	order   uint8  // frames that it covers, as a power of two
	count   uint64 // frames that are classified, if not all that it covers
	build   func(mm *kerneltest.Memmap, pfn mem.PFN)
	class   pages.Class
	levels  pages.DumpLevel // bits of which any excludes it
	always  bool            // every level excludes it
	only61  bool            // kernels with a slab flag
	only612 bool            // kernels with page types
}

// one returns a build function for a sample of one frame.
func one(p kerneltest.Page) func(*kerneltest.Memmap, mem.PFN) {
	return func(mm *kerneltest.Memmap, pfn mem.PFN) { mm.Set(pfn, p) }
}

func compound(order uint8, hugetlb bool, p kerneltest.Page) func(*kerneltest.Memmap, mem.PFN) {
	return func(mm *kerneltest.Memmap, pfn mem.PFN) { mm.SetCompound(pfn, order, p, hugetlb) }
}

const (
	lru      = kerneltest.FlagLRU
	private  = kerneltest.FlagPrivate
	anon     = 0xffff888000001000 | kerneltest.MappingAnon
	file     = 0xffff888000001000
	anyCache = pages.LevelCache | pages.LevelCachePrivate
)

// samples are the pages of a kernel with the types given.
func samples(types kerneltest.Types) []sample { return samplesOf(types, 9, 11) }

// samplesOf are those of a kernel with huge pages of that order and as many orders of free blocks.
func samplesOf(types kerneltest.Types, huge, orders uint8) []sample {
	all := []sample{
		{name: "kernel", build: one(kerneltest.Page{})},
		{name: "slab flag", only61: true, build: one(kerneltest.Page{Flags: kerneltest.FlagSlab, Mapping: anon})},
		{name: "slab type", only612: true, build: one(kerneltest.Page{Type: types.Slab, Mapping: anon})},
		{name: "slab that looks free", only61: true, build: one(kerneltest.Page{Flags: kerneltest.FlagSlab, Type: types.Buddy})},
		{name: "cache", build: one(kerneltest.Page{Flags: lru, Mapping: file}), class: pages.Cache, levels: anyCache},
		{
			name: "private cache", build: one(kerneltest.Page{Flags: lru | private, Mapping: file}),
			class: pages.CachePrivate, levels: pages.LevelCachePrivate,
		},
		{name: "anonymous", build: one(kerneltest.Page{Flags: lru, Mapping: anon}), class: pages.User, levels: pages.LevelUser},
		{
			name: "anonymous off the lru", build: one(kerneltest.Page{Flags: kerneltest.FlagSwapbacked, Mapping: anon}),
			class: pages.User, levels: pages.LevelUser,
		},
		{
			name:  "shmem in swap cache",
			build: one(kerneltest.Page{Flags: kerneltest.FlagSwapbacked | kerneltest.FlagSwapcache, Mapping: file}),
			class: pages.Cache, levels: anyCache,
		},
		{name: "swap cache bit means another thing", build: one(kerneltest.Page{Flags: kerneltest.FlagSwapcache, Mapping: file})},
		{name: "huge page", order: huge, build: compound(huge, false, kerneltest.Page{Flags: lru, Mapping: anon}), class: pages.User, levels: pages.LevelUser},
		{name: "large folio of cache", order: 4, build: compound(4, false, kerneltest.Page{Flags: lru, Mapping: file}), class: pages.Cache, levels: anyCache},
		{name: "hugetlb", order: huge, build: compound(huge, true, kerneltest.Page{}), class: pages.User, levels: pages.LevelUser},
		{name: "compound kernel page", order: 3, build: compound(3, false, kerneltest.Page{})},
		{
			name: "order beyond its alignment", order: 4, count: 1, class: pages.User, levels: pages.LevelUser,
			build: compound(4, false, kerneltest.Page{Flags: lru, Mapping: anon}),
		},
		{name: "free", order: 3, build: func(mm *kerneltest.Memmap, pfn mem.PFN) { mm.SetFree(pfn, 3) }, class: pages.Free, levels: pages.LevelFree},
		{name: "largest free", order: orders - 1, build: func(mm *kerneltest.Memmap, pfn mem.PFN) { mm.SetFree(pfn, uint64(orders-1)) }, class: pages.Free, levels: pages.LevelFree},
		{name: "free with no such order", build: func(mm *kerneltest.Memmap, pfn mem.PFN) { mm.SetFree(pfn, uint64(orders)) }},
		{name: "free with an absurd order", build: func(mm *kerneltest.Memmap, pfn mem.PFN) { mm.SetFree(pfn, 1<<40) }},
		{name: "poisoned", build: one(kerneltest.Page{Flags: kerneltest.FlagHWPoison}), class: pages.HWPoison, always: true},
		{
			name: "poisoned cache", build: one(kerneltest.Page{Flags: kerneltest.FlagHWPoison | lru, Mapping: file}),
			class: pages.Cache, always: true,
		},
		{name: "poisoned hugetlb", order: huge, build: compound(huge, true, kerneltest.Page{Flags: kerneltest.FlagHWPoison}), class: pages.User, always: true},
		{name: "offline", build: one(kerneltest.Page{Type: types.Offline}), class: pages.Offline, always: true},
		{
			name: "unaccepted", order: orders - 1, only612: true, build: one(kerneltest.Page{Type: types.Unaccepted}),
			class: pages.Free, levels: pages.LevelFree,
		},
	}
	return slices.DeleteFunc(all, func(s sample) bool { return s.only612 && types.Slab == 0 || s.only61 && types.Slab != 0 })
}

// place puts samples into a section, each aligned to 1024 frames, between frames
// of the kernel's own; one is out of its alignment on purpose.
func place(mm *kerneltest.Memmap, list []sample) map[mem.PFN]sample {
	return placeEvery(mm, list, 1024)
}

// placeEvery is place with another alignment, over as many sections as that takes.
func placeEvery(mm *kerneltest.Memmap, list []sample, every mem.PFN) map[mem.PFN]sample {
	at := map[mem.PFN]sample{}
	for i, s := range list {
		pfn := mem.PFN(i+1) * every
		if s.name == "order beyond its alignment" {
			pfn += 8
		}
		if s.count == 0 {
			s.count = 1 << s.order
		}
		s.build(mm, pfn)
		at[pfn] = s
	}
	return at
}

func ram(frames ...mem.PFN) []mem.Range {
	var r []mem.Range
	for i := 0; i < len(frames); i += 2 {
		r = append(r, mem.Range{Start: frames[i].Addr(12), End: frames[i+1].Addr(12)})
	}
	return r
}

func classifier(tb testing.TB, cfg kernel.Config, r []mem.Range) *pages.Classifier {
	tb.Helper()
	k, err := kernel.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := pages.New(k, r)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// walk returns the runs at a level, after checking that they cover the frames of r
// once, in order, and that neighbours differ.
func walk(tb testing.TB, c *pages.Classifier, level pages.DumpLevel, r []mem.Range) []pages.Run {
	tb.Helper()
	return walkPages(tb, c, level, r, 12)
}

// walkPages is walk for pages of 1<<shift bytes.
func walkPages(tb testing.TB, c *pages.Classifier, level pages.DumpLevel, r []mem.Range, shift uint) []pages.Run {
	tb.Helper()
	var runs []pages.Run
	if err := c.Walk(context.Background(), level, func(run pages.Run) error {
		runs = append(runs, run)
		return nil
	}); err != nil {
		tb.Fatalf("level %d: %v", level, err)
	}
	var want, got uint64
	for _, x := range r {
		want += uint64(x.End.PFN(shift) - x.Start.PFN(shift))
	}
	for i, run := range runs {
		got += run.Count
		if run.Count == 0 || i > 0 && run.Start < runs[i-1].End() {
			tb.Fatalf("level %d: run %v after %v", level, run, runs[i-1])
		}
		if i > 0 && run.Start == runs[i-1].End() && run.Class == runs[i-1].Class && run.Excluded == runs[i-1].Excluded {
			tb.Errorf("level %d: runs %v and %v should be one", level, runs[i-1], run)
		}
	}
	if got != want {
		tb.Fatalf("level %d: %d frames, want %d", level, got, want)
	}
	return runs
}

// find returns the run that holds a frame.
func find(tb testing.TB, runs []pages.Run, pfn mem.PFN) pages.Run {
	tb.Helper()
	for _, r := range runs {
		if r.Contains(pfn) {
			return r
		}
	}
	tb.Fatalf("frame %d is in no run", pfn)
	return pages.Run{}
}

func TestWalkClasses(t *testing.T) {
	for name, types := range map[string]kerneltest.Types{"6.1": kerneltest.Types61, "6.12": kerneltest.Types612} {
		m := kerneltest.NewX86(4)
		mm := m.AddMemmap(types, 8)
		mm.AddSection(0)
		at := place(mm, samples(types))
		r := ram(0, kerneltest.PagesPerSection)
		c := classifier(t, m.Config(), r)
		wantWarnings(t, name, c)
		for level := pages.DumpLevel(0); level <= pages.MaxLevel; level++ {
			checkSamples(t, fmt.Sprintf("%s level %d", name, level), walk(t, c, level, r), at, level)
		}
	}
}

func checkSamples(t *testing.T, name string, runs []pages.Run, at map[mem.PFN]sample, level pages.DumpLevel) {
	t.Helper()
	excluded := uint64(0)
	for pfn, s := range at {
		want := s.always || level&s.levels != 0
		if want {
			excluded += s.count
		}
		for i := range s.count {
			got := find(t, runs, pfn+mem.PFN(i))
			if got.Excluded != want {
				t.Errorf("%s: %s: frame %d of it: excluded %v, want %v", name, s.name, i, got.Excluded, want)
				break
			}
			if got.Class != s.class && !s.always {
				t.Errorf("%s: %s: frame %d of it is %v, want %v", name, s.name, i, got.Class, s.class)
				break
			}
		}
	}
	for _, r := range runs {
		if r.Excluded {
			excluded -= r.Count
		}
	}
	if excluded != 0 {
		t.Errorf("%s: %d frames too few excluded (modulo 2^64)", name, excluded)
	}
}

func wantWarnings(t *testing.T, name string, c *pages.Classifier, want ...string) {
	t.Helper()
	got := c.Warnings()
	for _, w := range want {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, w) }) {
			t.Errorf("%s: no warning names %s: %q", name, w, got)
		}
	}
	if len(want) == 0 && len(got) > 0 {
		t.Errorf("%s: warnings %q", name, got)
	}
}

// Of a kernel that cannot mark poisoned pages, makedumpfile reads no struct page at
// the levels 0 and 1, and keeps offline pages there.
func TestWalkWithoutHWPoison(t *testing.T) {
	m := kerneltest.NewX86(4)
	mm := m.AddMemmap(kerneltest.Types61, 1)
	mm.AddSection(0)
	mm.Set(7, kerneltest.Page{Type: kerneltest.Types61.Offline})
	delete(m.Numbers, "PG_hwpoison")
	r := ram(0, 1024)
	wantWarnings(t, "no pages can be poisoned", classifier(t, m.Config(), r))
	for level := pages.DumpLevel(0); level <= pages.MaxLevel; level++ {
		got := find(t, walk(t, classifier(t, m.Config(), r), level, r), 7)
		if want := level > 1; got.Class != pages.Offline || got.Excluded != want {
			t.Errorf("level %d: got %v, want it excluded: %v", level, got, want)
		}
	}
	delete(m.Numbers, "PAGE_BUDDY_MAPCOUNT_VALUE")
	for _, level := range []pages.DumpLevel{16, 17} {
		if got := find(t, walk(t, classifier(t, m.Config(), r), level, r), 7); got.Excluded {
			t.Errorf("level %d, free blocks cannot be told: got %v", level, got)
		}
	}
}

// A gigantic page reaches over several sections, and a hole.
func TestWalkAcrossSections(t *testing.T) {
	const sections = 10
	m := kerneltest.NewX86(4)
	mm := m.AddMemmap(kerneltest.Types612, sections)
	for nr := range uint64(sections) {
		mm.AddSection(nr)
	}
	const gigantic = 1 << 18
	for i := mem.PFN(0); i < gigantic; i++ {
		mm.Set(i, kerneltest.Page{Head: uint64(kerneltest.Vmemmap) | 1})
	}
	mm.SetCompound(0, 3, kerneltest.Page{}, true)
	order := kerneltest.Page{Head: uint64(kerneltest.Vmemmap) | 1, Flags: 18}.Bytes()
	m.Write(mm.StructPageAddr(1), order)
	mm.Set(gigantic, kerneltest.Page{Flags: lru, Mapping: file})
	r := ram(0, 40000, 50000, sections*kerneltest.PagesPerSection)
	c := classifier(t, m.Config(), r)
	want := []pages.Run{
		{Extent: mem.Extent{Start: 0, Count: 40000}, Class: pages.User, Excluded: true},
		{Extent: mem.Extent{Start: 50000, Count: gigantic - 50000}, Class: pages.User, Excluded: true},
		{Extent: mem.Extent{Start: gigantic, Count: 1}, Class: pages.Cache},
		{Extent: mem.Extent{Start: gigantic + 1, Count: sections*kerneltest.PagesPerSection - gigantic - 1}},
	}
	if got := walk(t, c, pages.LevelUser, r); !slices.Equal(got, want) {
		t.Errorf("level 8: got %v, want %v", got, want)
	}
	want[0].Excluded, want[1].Excluded, want[2].Excluded = false, false, true
	if got := walk(t, c, pages.LevelCache, r); !slices.Equal(got, want) {
		t.Errorf("level 2: got %v, want %v", got, want)
	}
}

// Frames that RAM only ends in count as any other, those that it only begins in do but have no struct page
// looked up, as in makedumpfile.
func TestWalkPartialFrames(t *testing.T) {
	m := kerneltest.NewX86(4)
	mm := m.AddMemmap(kerneltest.Types61, 1)
	mm.AddSection(0)
	for _, pfn := range []mem.PFN{1, 0x9f, 0x100, 0x101} {
		mm.Set(pfn, kerneltest.Page{Flags: lru, Mapping: anon})
	}
	r := []mem.Range{{Start: 0x1000, End: 0x9fc00}, {Start: 0x100200, End: 0x102000}}
	c := classifier(t, m.Config(), r)
	var got []pages.Run
	if err := c.Walk(t.Context(), pages.MaxLevel, func(r pages.Run) error { got = append(got, r); return nil }); err != nil {
		t.Fatal(err)
	}
	want := []pages.Run{
		{Extent: mem.Extent{Start: 1, Count: 1}, Class: pages.User, Excluded: true},
		{Extent: mem.Extent{Start: 2, Count: 0x9d}},
		{Extent: mem.Extent{Start: 0x9f, Count: 1}, Class: pages.User, Excluded: true},
		{Extent: mem.Extent{Start: 0x100, Count: 1}},
		{Extent: mem.Extent{Start: 0x101, Count: 1}, Class: pages.User, Excluded: true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWalkSections(t *testing.T) {
	m := kerneltest.NewX86(4)
	mm := m.AddMemmap(kerneltest.Types61, 600)
	first := mm.AddSection(0)
	mm.AddSection(2)
	mm.AddSection(5)
	const n = kerneltest.PagesPerSection
	mm.SetSection(5, 0) // unplugged
	mm.Set(2*n, kerneltest.Page{Flags: lru, Mapping: file})
	mapFrame := first.PFN(12) // the memory map of section 0 is 512 frames here
	mm.AddSection(uint64(mapFrame) / n)
	r := ram(0, 3*n, mapFrame-10, mapFrame+600, 400*n, 401*n)
	got := walk(t, classifier(t, m.Config(), r), pages.MaxLevel, r)
	want := []pages.Run{
		{Extent: mem.Extent{Start: 0, Count: 2 * n}}, // section 1 has no memory map
		{Extent: mem.Extent{Start: 2 * n, Count: 1}, Class: pages.Cache, Excluded: true},
		{Extent: mem.Extent{Start: 2*n + 1, Count: n - 1}},
		{Extent: mem.Extent{Start: mapFrame - 10, Count: 10}},
		{Extent: mem.Extent{Start: mapFrame, Count: 512}, Class: pages.Memmap},
		{Extent: mem.Extent{Start: mapFrame + 512, Count: 88}},
		// Nor has RAM behind the last section that has one, which makedumpfile drops.
		{Extent: mem.Extent{Start: 400 * n, Count: n}},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v,\nwant %v", got, want)
	}
	wantWarnings(t, "sections", classifier(t, m.Config(), r), fmt.Sprintf("%d page frames of RAM, the first of them pfn %d", 2*n, n))
}

// mem_section is an array of roots or a pointer to one, or an array of sections.
func TestWalkMemSectionKinds(t *testing.T) {
	for name, change := range map[string]func(*kerneltest.Machine){
		"array": func(*kerneltest.Machine) {},
		"pointer": func(m *kerneltest.Machine) {
			m.WriteVirt(m.Image(0x3000), kerneltest.Uint64(m.Symbols["mem_section"]))
			m.Symbols["mem_section"] = uint64(m.Image(0x3000))
		},
		"plain sparsemem": func(m *kerneltest.Machine) {
			m.Lengths["mem_section"] = 1 << (46 - 27)
			m.WriteVirt(m.Image(0x3000), kerneltest.Uint64(uint64(kerneltest.Vmemmap)|3))
			m.Symbols["mem_section"] = uint64(m.Image(0x3000))
		},
		"no lengths": func(m *kerneltest.Machine) {
			delete(m.Lengths, "mem_section")
			delete(m.Numbers, "MAX_PHYSMEM_BITS")
		},
	} {
		m := kerneltest.NewX86(4)
		mm := m.AddMemmap(kerneltest.Types61, 1)
		mm.AddSection(0)
		mm.Set(64, kerneltest.Page{Flags: lru, Mapping: file})
		change(m)
		r := ram(0, 1024)
		c := classifier(t, m.Config(), r)
		wantWarnings(t, name, c)
		if got := find(t, walk(t, c, pages.MaxLevel, r), 64); got.Class != pages.Cache {
			t.Errorf("%s: frame 64 is %v", name, got)
		}
	}
}

// A VMCOREINFO without one of its keys excludes less, never more, and says which
// key it misses.
func TestWalkMissingKeys(t *testing.T) {
	quiet := map[string]bool{ // keys that nothing is lost without
		"mem_section": true, "MAX_PHYSMEM_BITS": true, "phys_base": true, "pgtable_l5_enabled": true,
		"compound_dtor": true, "OSRELEASE": true, "_stext": true, "PAGE_UNACCEPTED_MAPCOUNT_VALUE": true,
		"PAGESIZE": true, "PG_hwpoison": true,
	}
	for name, types := range map[string]kerneltest.Types{"6.1": kerneltest.Types61, "6.12": kerneltest.Types612} {
		m := kerneltest.NewX86(4)
		m.Segments = []kernel.Segment{{Vaddr: kerneltest.X86Text, Paddr: 0x1000000, Size: 4 << 20}}
		mm := m.AddMemmap(types, 8)
		mm.AddSection(0)
		// A slab page has no other type in its type word, though the test for free
		// pages looks at the flag as well.
		place(mm, slices.DeleteFunc(samples(types), func(s sample) bool { return s.name == "slab that looks free" }))
		r := ram(0, kerneltest.PagesPerSection)
		whole := excludedFrames(walk(t, classifier(t, m.Config(), r), pages.MaxLevel, r))
		full := m.Info
		for _, key := range keysOf(full) {
			m.Info = full.Clone()
			remove(m.Info, key)
			k, _ := kernel.New(m.Config())
			c, err := pages.New(k, r)
			if err != nil {
				t.Fatalf("%s without %s: %v", name, key, err)
			}
			for _, level := range []pages.DumpLevel{0, 2, 8, 16, 31} {
				for pfn := range excludedFrames(walk(t, c, level, r)) {
					if !whole[pfn] {
						t.Fatalf("%s without %s: level %d excludes frame %d", name, key, level, pfn)
					}
				}
			}
			member := key[strings.LastIndexAny(key, ".:")+1:]
			if !quiet[member] || strings.HasPrefix(key, "symbol:mem_section") || strings.HasPrefix(key, "size:") {
				if !strings.Contains(strings.Join(append(k.Warnings(), c.Warnings()...), "\n"), member) {
					t.Errorf("%s without %s: no warning names it: %q", name, key, c.Warnings())
				}
			}
		}
	}
}

func excludedFrames(runs []pages.Run) map[mem.PFN]bool {
	set := map[mem.PFN]bool{}
	for _, r := range runs {
		for pfn := r.Start; r.Excluded && pfn < r.End(); pfn++ {
			set[pfn] = true
		}
	}
	return set
}

// keysOf lists the keys of a VMCOREINFO as kind:name.
func keysOf(i *kerneltest.Info) []string {
	var keys []string
	add := func(kind string, names []string) {
		for _, n := range names {
			keys = append(keys, kind+":"+n)
		}
	}
	add("symbol", slices.Sorted(maps.Keys(i.Symbols)))
	add("size", slices.Sorted(maps.Keys(i.Sizes)))
	add("offset", slices.Sorted(maps.Keys(i.Offsets)))
	add("length", slices.Sorted(maps.Keys(i.Lengths)))
	add("number", slices.Sorted(maps.Keys(i.Numbers)))
	add("string", slices.Sorted(maps.Keys(i.Strings)))
	return keys
}

func remove(i *kerneltest.Info, key string) {
	kind, name, _ := strings.Cut(key, ":")
	switch kind {
	case "symbol":
		delete(i.Symbols, name)
	case "size":
		delete(i.Sizes, name)
	case "offset":
		delete(i.Offsets, name)
	case "length":
		delete(i.Lengths, name)
	case "number":
		delete(i.Numbers, name)
	case "string":
		delete(i.Strings, name)
	}
}

// change sets a key of keysOf.
func change(i *kerneltest.Info, key string, v uint64) {
	kind, name, _ := strings.Cut(key, ":")
	switch kind {
	case "symbol":
		i.Symbols[name] = v
	case "size":
		i.Sizes[name] = v
	case "offset":
		i.Offsets[name] = v
	case "length":
		i.Lengths[name] = v
	case "number":
		i.Numbers[name] = int64(v)
	case "string":
		i.Strings[name] = fmt.Sprint(v)
	}
}

// Absurd values end in warnings, not in failures, panics or endless loops.
func TestWalkAbsurdValues(t *testing.T) {
	m := kerneltest.NewX86(4)
	mm := m.AddMemmap(kerneltest.Types61, 1)
	mm.AddSection(0)
	place(mm, samples(kerneltest.Types61))
	r := ram(0, kerneltest.PagesPerSection)
	full := m.Info
	for _, key := range keysOf(full) {
		for _, v := range []uint64{0, 3, 200, 1 << 40, 1 << 63, ^uint64(0)} {
			m.Info = full.Clone()
			change(m.Info, key, v)
			walk(t, classifier(t, m.Config(), r), pages.MaxLevel, r)
		}
	}
	for key, value := range map[string]uint64{"SIZE(page)": 1 << 40, "SECTION_SIZE_BITS": 200, "OFFSET(page.flags)": 60} {
		m.Info = full.Clone()
		switch key {
		case "SIZE(page)":
			m.Sizes["page"] = value
		case "OFFSET(page.flags)":
			m.Offsets["page.flags"] = value
		default:
			m.Numbers[key] = int64(value)
		}
		c := classifier(t, m.Config(), r)
		wantWarnings(t, key, c, key)
		if n := len(excludedFrames(walk(t, c, pages.MaxLevel, r))); n != 0 {
			t.Errorf("%s: %d frames excluded", key, n)
		}
	}
}

// Struct pages that cannot be read keep their frames.
func TestWalkMissingStructPages(t *testing.T) {
	m := kerneltest.NewX86(4)
	mm := m.AddMemmap(kerneltest.Types61, 1)
	mm.AddSection(0)
	for pfn := range mem.PFN(kerneltest.PagesPerSection) {
		mm.Set(pfn, kerneltest.Page{Flags: lru, Mapping: file})
	}
	m.Remove(mm.StructPageAddr(128)) // of frames 128 to 191
	r := ram(0, kerneltest.PagesPerSection)
	c := classifier(t, m.Config(), r)
	want := []pages.Run{
		{Extent: mem.Extent{Start: 0, Count: 128}, Class: pages.Cache, Excluded: true},
		{Extent: mem.Extent{Start: 128, Count: 64}},
		{Extent: mem.Extent{Start: 192, Count: kerneltest.PagesPerSection - 192}, Class: pages.Cache, Excluded: true},
	}
	for range 2 {
		if got := walk(t, c, pages.MaxLevel, r); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if w := c.Warnings(); len(w) != 1 || !strings.Contains(w[0], "pfn 128") {
			t.Errorf("warnings %q", w)
		}
	}
}

func TestWalkEnds(t *testing.T) {
	m := kerneltest.NewX86(4)
	mm := m.AddMemmap(kerneltest.Types61, 2)
	mm.AddSection(0)
	mm.AddSection(1)
	mm.Set(5, kerneltest.Page{Flags: lru, Mapping: file})
	c := classifier(t, m.Config(), ram(0, 2*kerneltest.PagesPerSection))
	stop := errors.New("stop")
	calls := 0
	if err := c.Walk(t.Context(), 31, func(pages.Run) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Walk(ctx, 31, func(pages.Run) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	if err := c.Walk(t.Context(), 32, func(pages.Run) error { return nil }); err == nil {
		t.Error("level 32 is taken")
	}
	if _, err := pages.New(nil, nil); err == nil {
		t.Error("no kernel, no error")
	}
	if runs := walk(t, classifier(t, m.Config(), nil), 31, nil); len(runs) != 0 {
		t.Errorf("no RAM: got %v", runs)
	}
}

// Walks can run side by side.
func TestWalkConcurrently(t *testing.T) {
	m := kerneltest.NewX86(4)
	mm := m.AddMemmap(kerneltest.Types61, 1)
	mm.AddSection(0)
	place(mm, samples(kerneltest.Types61))
	r := ram(0, kerneltest.PagesPerSection)
	c := classifier(t, m.Config(), r)
	want := walk(t, c, pages.MaxLevel, r)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var got []pages.Run
			err := c.Walk(t.Context(), pages.MaxLevel, func(run pages.Run) error { got = append(got, run); return nil })
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	wg.Wait()
}
