package kdumpfile_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

const erasedText = "erase jiffies size 8\nerase cred_jar nullify\n"

// withEraseinfo is a file as makedumpfile --config leaves it: the text at the end of the
// file, named by the sub header that was written once more.
func withEraseinfo(d *dump) []byte {
	b, s := d.bytes(), d.pageSize
	d.order.PutUint64(b[s+64:], uint64(len(b)))
	d.order.PutUint64(b[s+72:], uint64(len(erasedText)))
	return append(b, erasedText...)
}

// writtenAgain writes the headers of r, and no page, to a new file.
func writtenAgain(t *testing.T, r *kdumpfile.Reader) []byte {
	t.Helper()
	h := *r.Header()
	h.Eraseinfo, h.DumpLevel = true, max(h.DumpLevel, 0)
	f := &memFile{}
	w, err := kdumpfile.Create(f, &h, slices.Values([]mem.Extent(nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SealComplete(); err != nil {
		t.Fatal(err)
	}
	return f.b
}

// TestTextsBesideTheNotes: VMCOREINFO and ERASEINFO that only the sub header names stand
// in the notes, and so in every file that is made of them, where the sub header names them.
func TestTextsBesideTheNotes(t *testing.T) {
	for version := uint32(3); version <= 6; version++ {
		for name, o := range map[string]vmcoretest.Order{"little": le, "big": be} {
			for _, size := range vmcore.PageSizes {
				t.Run(fmt.Sprintf("v%d %s endian %d", version, name, size), func(t *testing.T) {
					d, raw := sampleDump(o, version, size)
					r := open(t, withEraseinfo(d))
					checkPages(t, r, raw, d.ram)
					again := open(t, writtenAgain(t, r))
					for _, i := range []*vmcore.Info{r.Info(), again.Info()} {
						if release, _ := i.VMCOREINFO.String("OSRELEASE"); release != "6.1.0" {
							t.Errorf("OSRELEASE %q", release)
						}
						if desc, _ := vmcore.FindVMCOREINFO(i.Notes, o); string(desc) != "OSRELEASE=6.1.0\n" {
							t.Errorf("note %q", desc)
						}
						want := ""
						if version >= 5 {
							want = erasedText
						}
						if string(i.Eraseinfo) != want || strings.Contains(strings.Join(i.Warnings, "|"), "erased") != (want != "") {
							t.Errorf("ERASEINFO %q, warnings %q", i.Eraseinfo, i.Warnings)
						}
					}
					if !bytes.Equal(again.Info().Notes, r.Info().Notes) {
						t.Error("the notes changed when they were read back")
					}
				})
			}
		}
	}
}

// TestSubHeaderNamesErasedData: readers that go by the sub header alone find the text.
func TestSubHeaderNamesErasedData(t *testing.T) {
	d, _ := sampleDump(le, 6, 4096)
	r := open(t, withEraseinfo(d))
	b := writtenAgain(t, r)
	at, n := le.Uint64(b[4096+64:]), le.Uint64(b[4096+72:])
	if n == 0 || string(b[at:at+n]) != erasedText {
		t.Errorf("%d bytes at %#x", n, at)
	}
	h := *r.Header() // as a dump was laid out that was stored before
	front, err := h.EncodeFront(false)
	if err != nil || le.Uint64(front[4096+64:]) != 0 {
		t.Errorf("offset_eraseinfo %#x, %v, want none", le.Uint64(front[4096+64:]), err)
	}
}

// TestBadTextsBesideTheNotes: texts that are not where the sub header says leave a warning,
// never an error: the pages are there.
func TestBadTextsBesideTheNotes(t *testing.T) {
	for _, tc := range []struct {
		name          string
		field         int
		at, n         uint64
		warning, none string
	}{
		{"eraseinfo beyond the file", 64, 1 << 40, 10, "what was erased is not known", ""},
		{"eraseinfo at a negative offset", 64, 1 << 63, 10, "what was erased is not known", ""},
		{"eraseinfo of 16 EiB", 64, 4096, 1 << 63, "what was erased is not known", ""},
		{"no eraseinfo, but an offset", 64, 4096, 0, "", "erase"},
		{"eraseinfo without an offset", 64, 0, 10, "", "erase"},
		{"vmcoreinfo beyond the file", 32, 1 << 40, 10, "vmcoreinfo", ""},
		{"vmcoreinfo of 16 EiB", 32, 4096, 1 << 63, "vmcoreinfo", ""},
		{"vmcoreinfo that is no text", 32, 8192, 64, "no KEY=VALUE", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, raw := sampleDump(le, 6, 4096)
			d.notes = vmcoretest.Prstatus(le, 1, nil)
			b := d.bytes()
			le.PutUint64(b[4096+tc.field:], tc.at)
			le.PutUint64(b[4096+tc.field+8:], tc.n)
			r := open(t, b)
			checkPages(t, r, raw, d.ram)
			w := strings.Join(r.Info().Warnings, "|")
			if !strings.Contains(w, tc.warning) || tc.none != "" && strings.Contains(w, tc.none) {
				t.Errorf("warnings: %q", w)
			}
			if len(r.Info().CPUs) != 1 {
				t.Errorf("%d CPUs", len(r.Info().CPUs))
			}
		})
	}
}

// TestCountsOfTheHeader: nr_cpus, current_cpu and the mark of unused struct pages are told,
// and written again; values that cannot be are left out with a warning.
func TestCountsOfTheHeader(t *testing.T) {
	for name, o := range map[string]vmcoretest.Order{"little": le, "big": be} {
		t.Run(name, func(t *testing.T) {
			d, _ := sampleDump(o, 6, 4096)
			d.status = kdumpfile.StatusExcludedVmemmap
			b := d.bytes()
			o.PutUint32(b[456:], 1)
			r := open(t, b)
			for _, i := range []*vmcore.Info{r.Info(), open(t, writtenAgain(t, r)).Info()} {
				if i.NrCPUs != 2 || i.CurrentCPU != 1 || !i.ExcludedVmemmap || len(i.Warnings) != 0 {
					t.Errorf("%d CPUs, current %d, excluded vmemmap %v, warnings %q", i.NrCPUs, i.CurrentCPU, i.ExcludedVmemmap, i.Warnings)
				}
			}
			o.PutUint32(b[456:], 1<<31)
			o.PutUint32(b[460:], 1<<32-1)
			o.PutUint32(b[4096+8:], 1<<20)
			r = open(t, b)
			if i := r.Info(); i.NrCPUs != 0 || i.CurrentCPU != -1 || i.DumpLevel != 31 || len(i.Warnings) != 3 {
				t.Errorf("%d CPUs, current %d, dump level %d, warnings %q", i.NrCPUs, i.CurrentCPU, i.DumpLevel, i.Warnings)
			}
			writtenAgain(t, r)
		})
	}
}
