package sender

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore/vmcoreinfo"
)

// unknownImage is a dump of a machine of which nothing is known but its page size and RAM.
func unknownImage(t *testing.T, machine elf.Machine, pageSize int, ram ...mem.Range) *fakeImage {
	t.Helper()
	img := newFakeImage(t, ram...)
	vi, err := vmcoreinfo.Parse(fmt.Appendf(nil, "OSRELEASE=6.6.0-test\nPAGESIZE=%d\n", pageSize))
	if err != nil {
		t.Fatal(err)
	}
	img.info.VMCOREINFO, img.info.Machine, img.info.PageSize = vi, machine, pageSize
	img.info.MaxPFN = ram[len(ram)-1].Pages(img.info.PageShift()).End()
	return img
}

// Of a kernel that is not understood every page is sent, in pages of the dump's own size, wherever
// RAM lies, and somebody is told.
func TestPlanOfUnknownKernelKeepsAllRAM(t *testing.T) {
	const gib = 1 << 30
	for _, machine := range []elf.Machine{elf.EM_AARCH64, elf.EM_X86_64, elf.EM_PPC64, elf.EM_S390, elf.EM_RISCV, elf.EM_NONE} {
		for _, size := range []int{4 << 10, 16 << 10, 64 << 10} {
			for name, ram := range map[string][]mem.Range{
				"16 MiB at 1 GiB":  {{Start: gib, End: gib + 16<<20}},
				"64 GiB at 2 GiB":  {{Start: 2 * gib, End: 66 * gib}},
				"high":             {{Start: gib, End: gib + 4<<20}, {Start: 1<<48 - gib, End: 1<<48 - gib + 4<<20}},
				"beyond 48 bits":   {{Start: 0, End: 4 << 20}, {Start: 1<<51 + gib, End: 1<<51 + gib + 4<<20}},
				"ends in a page":   {{Start: gib, End: gib + 4<<20 + 512}},
				"starts in a page": {{Start: gib + 512, End: gib + 4<<20}},
			} {
				name := fmt.Sprintf("%v, pages of %d, %s", machine, size, name)
				src, err := NewSource(unknownImage(t, machine, size, ram...))
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				p, err := src.Plan(t.Context(), 31)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				want := uint64(0)
				for _, r := range ram {
					want += r.Pages(src.Info().PageShift()).Count
				}
				if p.Sum.Kept != want {
					t.Errorf("%s: %d pages, want %d", name, p.Sum.Kept, want)
				}
				if !slices.ContainsFunc(src.Warnings(), func(w string) bool { return strings.Contains(w, "no page can be excluded") }) {
					t.Errorf("%s: nobody is told: %q", name, src.Warnings())
				}
			}
		}
	}
}

// walkerFunc is a page filter.
type walkerFunc func(yield func(pages.Run) error) error

func (f walkerFunc) Walk(_ context.Context, _ pages.DumpLevel, yield func(pages.Run) error) error {
	return f(yield)
}

// A page filter that does not tell of all RAM, or tells of other frames, costs the filtering.
func TestPlanOfFilterThatMissesRAM(t *testing.T) {
	ram := []mem.Range{{Start: 16 << 12, End: 1000 << 12}, {Start: 2000 << 12, End: 3000 << 12}}
	run := func(start, count uint64, excluded bool) pages.Run {
		return pages.Run{Extent: mem.Extent{Start: mem.PFN(start), Count: count}, Excluded: excluded}
	}
	for name, runs := range map[string][]pages.Run{
		"nothing":           nil,
		"first range only":  {run(16, 984, false)},
		"a hole":            {run(16, 100, false), run(200, 800, false), run(2000, 1000, false)},
		"frames of 1 KiB":   {run(64, 3936, false), run(8000, 4000, false)},
		"beyond the range":  {run(16, 2000, false), run(2016, 984, false)},
		"twice":             {run(16, 984, false), run(2000, 500, false), run(2000, 1000, false)},
		"everything is out": {run(16, 984, true), run(2000, 1000, true)},
	} {
		src, err := NewSource(newFakeImage(t, ram...))
		if err != nil {
			t.Fatal(err)
		}
		src.pages = walkerFunc(func(yield func(pages.Run) error) error {
			for _, r := range runs {
				if err := yield(r); err != nil {
					return err
				}
			}
			return nil
		})
		p, err := src.Plan(t.Context(), 31)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Sum.Kept != 1984 || !strings.Contains(strings.Join(p.Warnings, "\n"), "all pages are kept") {
			t.Errorf("%s: %d pages kept, want 1984; warnings %q", name, p.Sum.Kept, p.Warnings)
		}
	}
}

// emptyImage is a dump file without any page of its machine's RAM.
type emptyImage struct{ *fakeImage }

func (emptyImage) Pages() iter.Seq2[mem.Extent, error] {
	return func(func(mem.Extent, error) bool) {}
}

// A plan of nothing is an error before a page is sent; the log went ahead. It is no complete dump.
func TestSendOfPlanWithoutPages(t *testing.T) {
	img := newFakeImage(t, mem.Range{Start: 16 << 12, End: 1000 << 12})
	src, err := NewSource(emptyImage{img})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := src.Plan(t.Context(), 31); !errors.Is(err, ErrNoPages) {
		t.Errorf("plan: got %v, want ErrNoPages", err)
	}
	f := newFakeReceiver(t)
	res, err := Send(t.Context(), src, options(f))
	if !errors.Is(err, ErrNoPages) {
		t.Errorf("got %+v, %v, want ErrNoPages", res, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.logEnd == nil || f.plan != nil {
		t.Errorf("log sent: %v, plan sent: %v", f.logEnd != nil, f.plan != nil)
	}
}
