package e2e

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/triage"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// lostImage is a dump in which a page frame cannot be read. It notes which ones were read.
type lostImage struct {
	vmcore.Image
	lost mem.PFN
	read map[mem.PFN]bool
}

var errLost = errors.New("page is lost")

func (l *lostImage) ReadPhys(p []byte, a mem.PhysAddr) error {
	for pfn := a.PFN(12); pfn <= (a + mem.PhysAddr(len(p)) - 1).PFN(12); pfn++ {
		if l.read != nil {
			l.read[pfn] = true
		}
		if pfn == l.lost {
			return errLost
		}
	}
	return l.Image.ReadPhys(p, a)
}

// TestTriageOfLostPages: a page of a table that cannot be read costs what it has. The report of the dump has every frame nevertheless, some
// of them without a name, none with another.
func TestTriageOfLostPages(t *testing.T) {
	t.Parallel()
	for _, kernel := range []string{"6.1", "7.3"} {
		t.Run(kernel, func(t *testing.T) {
			c, err := lab.Panic(t.Context(), lab.Scenario{Kernel: kernel, Crash: "bpf"})
			if err != nil {
				t.Fatal(err)
			}
			img, err := dumpfile.Open(c.Dump)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = img.Close() }()
			whole := triage.OfDump(triage.Open(img), nil)
			lossy, unnamed := 0, 0
			const every = 80 // of 400 to 1000 pages
			for i, pfn := range triageTablePages(t, img) {
				if i%every != 0 {
					continue
				}
				r := triage.OfDump(triage.Open(&lostImage{Image: img, lost: pfn}), nil)
				said := strings.Join(r.Unread, "\n")
				if !strings.Contains(said, kallsyms.ErrIncomplete.Error()) {
					continue
				}
				lossy++
				if !strings.Contains(said, "symbols lack") { // one of the few by which lists are found
					unnamed += triageCompareLost(t, r, whole)
				}
			}
			if lossy < 4 {
				t.Errorf("%d reports of tables that are incomplete", lossy)
			}
			t.Logf("%d reports, %d frames without a name", lossy, unnamed)
		})
	}
}

// triageTablePages lists the pages that the symbol table of a dump is read from.
func triageTablePages(t *testing.T, img vmcore.Image) []mem.PFN {
	t.Helper()
	noted := &lostImage{Image: img, lost: 1 << 50, read: map[mem.PFN]bool{}}
	k, err := machine.Kernel(noted, img.Info())
	if err != nil {
		t.Fatal(err)
	}
	clear(noted.read)
	if _, err := kallsyms.Load(k); err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(noted.read))
}

// triageCompareLost wants the frames of the whole dump, and returns how many have no name.
func triageCompareLost(t *testing.T, r, whole *triage.Report) (unnamed int) {
	t.Helper()
	if len(r.Backtraces) == 0 || len(r.Modules) != len(whole.Modules) {
		t.Errorf("%d backtraces, %d modules: %q", len(r.Backtraces), len(r.Modules), r.Unread)
		return 0
	}
	got, want := r.Backtraces[0].Frames, whole.Backtraces[0].Frames
	for i := range want {
		switch {
		case i >= len(got) || got[i].Address != want[i].Address:
			t.Errorf("frame %d of %s is not there: %q", i, want[i].Function, r.Unread)
			return unnamed
		case got[i].Function == "":
			unnamed++
		case got[i].Function != want[i].Function || got[i].Offset != want[i].Offset:
			t.Errorf("%s+%#x is called %s+%#x", want[i].Function, want[i].Offset, got[i].Function, got[i].Offset)
		}
	}
	return unnamed
}
