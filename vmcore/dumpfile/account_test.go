package dumpfile_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestAccountOfLackingFiles takes the account of files that do not hold all that they should: none is complete, the pages
// that are missing are counted, and only they cannot be read.
func TestAccountOfLackingFiles(t *testing.T) {
	for _, tc := range vmcoretest.LackingFiles(t) {
		t.Run(tc.Name, func(t *testing.T) {
			img, err := dumpfile.New(bytes.NewReader(tc.Bytes), int64(len(tc.Bytes)))
			if err != nil {
				t.Fatal(err)
			}
			a := accountOf(t, img)
			if a.Complete() || a.Missing() != tc.Missing || !strings.Contains(a.Reason(), tc.Reason) {
				t.Errorf("%d missing of %d: %q; want %d, %q", a.Missing(), a.Planned, a.Reason(), tc.Missing, tc.Reason)
			}
			if bad := unreadable(t, img); bad != tc.Missing {
				t.Errorf("%d pages cannot be read, want %d", bad, tc.Missing)
			}
		})
	}
}

// TestAccountOfWholeFiles takes the account of what makedumpfile and the kernel wrote: it is complete.
func TestAccountOfWholeFiles(t *testing.T) {
	for _, name := range vmcoretest.Samples(t, "x86_64") {
		if strings.HasSuffix(name, ".cut") || strings.Contains(name, "split") {
			continue
		}
		img := openSample(t, name)
		if a := accountOf(t, img); !a.Complete() || a.Reason() != "" || a.Planned < 9 || a.Excluded > 1<<20 {
			t.Errorf("%s: %+v: %s", name, a, a.Reason())
		}
	}
}

// TestFlattenedWithoutARecord drops each record of a stream once: headers, notes, bitmaps, descriptors, page data. What is
// opened then is complete only when it says the same as the whole, and has no page that differs.
func TestFlattenedWithoutARecord(t *testing.T) {
	streams := map[string][]byte{}
	for _, name := range vmcoretest.Samples(t, ".flat") {
		if !strings.HasSuffix(name, ".cut") {
			streams[name] = vmcoretest.Sample(t, name)
		}
	}
	for _, name := range []string{"makedumpfile-1.7.6-x86_64-zlib.kdump", "makedumpfile-1.7.6-x86_64-raw.kdump", "vmcore-6.1-x86_64-tiny.elf"} {
		streams[name+" in pieces"] = vmcoretest.Flatten(vmcoretest.Sample(t, name), 200)
	}
	for name, flat := range streams {
		t.Run(name, func(t *testing.T) {
			whole, err := dumpfile.New(bytes.NewReader(flat), int64(len(flat)))
			if err != nil {
				t.Fatal(err)
			}
			if a := accountOf(t, whole); !a.Complete() {
				t.Fatalf("the whole stream: %s", a.Reason())
			}
			n := len(vmcoretest.Records(flat))
			opened, partial := 0, 0
			step := min(race.Stride(9), 1+n/20)
			for i := 0; i < n; i += step {
				b := vmcoretest.WithoutRecord(flat, i)
				img, err := dumpfile.New(bytes.NewReader(b), int64(len(b)))
				if err != nil {
					continue
				}
				opened++
				bad := differing(t, img, whole)
				a := accountOf(t, img)
				if !a.Complete() {
					partial++
				}
				if bad > 0 || a.Complete() && !sameDump(t, img, whole) {
					t.Errorf("without record %d of %d: %d pages differ; %+v", i, n, bad, a)
				}
			}
			if opened*step < n/2 || partial*step < n/4 {
				t.Errorf("of %d streams %d were opened, %d are partial", n, opened, partial)
			}
		})
	}
}

func accountOf(t *testing.T, img vmcore.Image) *vmcore.Account {
	t.Helper()
	a, err := vmcore.AccountOf(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// unreadable counts the pages that cannot be read because they are missing.
func unreadable(t *testing.T, img vmcore.Image) (n uint64) {
	t.Helper()
	p := make([]byte, img.Info().PageSize)
	for e, err := range img.Pages() {
		if err != nil {
			t.Fatal(err)
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			switch err := img.ReadPage(p, pfn); {
			case errors.Is(err, vmcore.ErrIncomplete), errors.Is(err, vmcore.ErrTruncated):
				n++
			case err != nil:
				t.Errorf("pfn %d: %v", pfn, err)
			}
		}
	}
	return n
}

// differing counts the pages that can be read of img and are others in whole.
func differing(t *testing.T, img, whole vmcore.Image) (n int) {
	t.Helper()
	p, q := make([]byte, img.Info().PageSize), make([]byte, whole.Info().PageSize)
	for e, err := range vmcore.HeldPages(img) {
		if err != nil {
			t.Fatal(err)
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if img.ReadPage(p, pfn) == nil && (whole.ReadPage(q, pfn) != nil || !bytes.Equal(p, q)) {
				n++
			}
		}
	}
	return n
}

// sameDump reports whether two images say the same.
func sameDump(t *testing.T, a, b vmcore.Image) bool {
	t.Helper()
	i, j := a.Info(), b.Info()
	return bytes.Equal(i.Notes, j.Notes) && i.MaxPFN == j.MaxPFN && i.Utsname == j.Utsname && slices.Equal(a.RAM(), b.RAM()) &&
		slices.Equal(list(t, a), list(t, b))
}

func list(t *testing.T, img vmcore.Image) (list []mem.Extent) {
	t.Helper()
	for e, err := range vmcore.HeldPages(img) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}
