package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/triage"
	"github.com/corehaul/corehaul/vmcore"
)

// damagedImage is a dump in which some page frames have other contents. It notes which ones were read.
type damagedImage struct {
	vmcore.Image
	pages map[mem.PFN][]byte
	read  map[mem.PFN]bool
	bytes uint64
}

func (d *damagedImage) ReadPhys(p []byte, a mem.PhysAddr) error {
	if err := d.Image.ReadPhys(p, a); err != nil {
		return err
	}
	d.bytes += uint64(len(p))
	const size = 4096
	for at := uint64(a) / size * size; at < uint64(a)+uint64(len(p)); at += size {
		pfn := mem.PFN(at / size)
		if d.read != nil {
			d.read[pfn] = true
		}
		for i, c := range d.pages[pfn] {
			if off := int64(at) + int64(i) - int64(a); off >= 0 && off < int64(len(p)) {
				p[off] = c
			}
		}
	}
	return nil
}

// damage changes a page in one of the ways in which memory goes bad: a bit, a word, all of it.
func damage(r *rand.Rand, page []byte) {
	switch r.IntN(4) {
	case 0:
		page[r.IntN(len(page))] ^= 1 << r.IntN(8)
	case 1:
		clear(page)
	case 2:
		for i := range page {
			page[i] = byte(r.Uint32())
		}
	default:
		at := r.IntN(len(page)/8) * 8
		for i := range 8 {
			page[at+i] = byte(r.Uint32())
		}
	}
}

// TestTriageOfDamage changes pages that a report is made of. Whatever they hold, the report is made, in bounded memory, and says what it could
// not read.
func TestTriageOfDamage(t *testing.T) {
	t.Parallel()
	runs := uint64(100)
	if os.Getenv("COREHAUL_MUTATIONS") == "all" {
		runs = 1000
	}
	for _, kernel := range triageKernels {
		t.Run(kernel, func(t *testing.T) {
			img := openDump(t, tasksCapture(t, lab.Scenario{Kernel: kernel})).Image
			whole := &damagedImage{Image: img, read: map[mem.PFN]bool{}}
			if r := triage.OfDump(triage.Open(whole), nil); len(r.Unread) > 0 {
				t.Fatalf("of the whole dump: %q", r.Unread)
			}
			pfns := slices.Sorted(maps.Keys(whole.read))
			for seed := range runs {
				triageDamaged(t, img, pfns, seed)
			}
		})
	}
}

// triageDamaged makes a report of a dump in which up to eight of the pages differ.
func triageDamaged(t *testing.T, img vmcore.Image, pfns []mem.PFN, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 0))
	bad := &damagedImage{Image: img, pages: map[mem.PFN][]byte{}}
	for range 1 + rnd.IntN(8) {
		pfn := pfns[rnd.IntN(len(pfns))]
		page := make([]byte, 4096)
		if err := img.ReadPage(page, pfn); err != nil {
			t.Fatal(err)
		}
		damage(rnd, page)
		bad.pages[pfn] = page
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := triage.OfDump(triage.Open(bad), nil)
	runtime.ReadMemStats(&after)
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(512<<20); got > most {
		t.Errorf("seed %d: %d bytes were allocated, want at most %d", seed, got, most)
	}
	for _, line := range r.Unread {
		if strings.Contains(line, "internal error") {
			t.Errorf("seed %d: %s", seed, line)
		}
	}
}

// TestTriageReadsLittle compares what a report reads of a small machine and of large ones, and makes the report in bounded memory. The dump
// of 4 GiB takes a minute of CPU time, once.
func TestTriageReadsLittle(t *testing.T) {
	t.Parallel()
	small := triageRead(t, lab.Scenario{Kernel: "6.1"})
	for _, s := range []lab.Scenario{{Kernel: "6.1", Busy: true, MemMiB: 1536}, {Kernel: "6.1", MemMiB: 4096}} {
		if large := triageRead(t, s); large > small*3/2 {
			t.Errorf("%d bytes are read of %s, %d of a machine with 1 GiB", large, s.Name(), small)
		}
	}
}

// triageMemory is the most data that a report may need, in bytes. The program maps nothing of a dump.
const triageMemory = 256 << 20

// triageRead returns the bytes that a report reads of a dump.
func triageRead(t *testing.T, s lab.Scenario) uint64 {
	t.Helper()
	c := tasksCapture(t, s)
	d := &damagedImage{Image: openDump(t, c).Image}
	if r := triage.OfDump(triage.Open(d), nil); len(r.Backtraces) == 0 || len(r.Unread) > 0 {
		t.Errorf("%s: %d backtraces, unread: %q", s.Name(), len(r.Backtraces), r.Unread)
	}
	report := exec.CommandContext(t.Context(), "prlimit", fmt.Sprintf("--data=%d", triageMemory), judgesBin+"corehaul", "report", c.ELF)
	if out, err := report.CombinedOutput(); err != nil {
		t.Errorf("a report of %s in %d bytes: %v\n%s", s.Name(), triageMemory, err, out)
	}
	t.Logf("%s: %d bytes", s.Name(), d.bytes)
	return d.bytes
}
