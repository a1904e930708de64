package kdumpfile_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestSet joins the pieces of a dump, all of them and all but one.
func TestSet(t *testing.T) {
	for _, version := range []uint32{2, 6} {
		d, raw := sampleDump(le, version, 4096)
		pieces := []mem.Extent{{Count: 6}, {Start: 32768, Count: 40000 - 32768}, {Start: 6, Count: 32762}}
		var readers []*kdumpfile.Reader
		for i := range pieces {
			d.split = &pieces[i]
			readers = append(readers, open(t, d.bytes()))
		}
		for without := range len(pieces) + 1 {
			var some []*kdumpfile.Reader
			for i, r := range readers {
				if i != without {
					some = append(some, r)
				}
			}
			s, err := kdumpfile.Join(some)
			if err != nil {
				t.Fatal(err)
			}
			checkSet(t, s, raw, pieces[without:min(without+1, len(pieces))])
		}
		if _, err := kdumpfile.Join(append(readers, readers[2])); !errors.Is(err, kdumpfile.ErrOtherSet) {
			t.Errorf("twice the same piece: %v", err)
		}
		d.split = nil
		if _, err := kdumpfile.Join([]*kdumpfile.Reader{readers[0], open(t, d.bytes())}); !errors.Is(err, kdumpfile.ErrOtherSet) {
			t.Errorf("a file that is no piece: %v", err)
		}
	}
}

// checkSet reads all pages of s, without those of the missing piece.
func checkSet(t *testing.T, s *kdumpfile.Set, raw map[uint64][]byte, missing []mem.Extent) {
	t.Helper()
	account, err := vmcore.AccountOf(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	page, lost := make([]byte, 4096), uint64(0)
	for pfn, want := range raw {
		err := s.ReadPage(page, mem.PFN(pfn))
		if len(missing) > 0 && missing[0].Contains(mem.PFN(pfn)) {
			lost++
			if !errors.Is(err, vmcore.ErrIncomplete) {
				t.Errorf("pfn %d of the missing piece: %v", pfn, err)
			}
			continue
		}
		if err != nil || !bytes.Equal(page, want) {
			t.Errorf("pfn %d: %v", pfn, err)
		}
		if err := s.ReadPhys(page[:8], mem.PhysAddr(pfn<<12+4088)); err != nil || !bytes.Equal(page[:8], want[4088:]) {
			t.Errorf("the end of pfn %d: %v", pfn, err)
		}
	}
	if account.Planned != uint64(len(raw)) || account.Missing() != lost || s.Info().Incomplete != (len(missing) > 0) {
		t.Errorf("%+v, %d pages are lost, info %+v", account, lost, s.Info())
	}
	if named := strings.Contains(account.Reason(), "piece of the --split set"); named != (len(missing) > 0) || strings.Contains(account.Reason(), "look excluded") {
		t.Errorf("reason: %s", account.Reason())
	}
}

// TestRealSet joins what makedumpfile --split wrote.
func TestRealSet(t *testing.T) {
	core := vmcoretest.Sample(t, "vmcore-6.1-x86_64-tiny.elf")
	want, err := elfcore.New(bytes.NewReader(core), int64(len(core)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := kdumpfile.Join([]*kdumpfile.Reader{
		open(t, vmcoretest.Sample(t, "makedumpfile-1.7.6-x86_64-zstd-split2.kdump")), open(t, vmcoretest.Sample(t, "makedumpfile-1.7.6-x86_64-zstd-split1.kdump")),
	})
	if err != nil {
		t.Fatal(err)
	}
	if account, err := vmcore.AccountOf(t.Context(), s); err != nil || !account.Complete() {
		t.Errorf("%+v, %v", account, err)
	}
	comparePages(t, s, want, true)
}

// FuzzSet joins two files of any contents. What it says that it holds it reads, or the page is damaged.
func FuzzSet(f *testing.F) {
	f.Add(vmcoretest.Sample(f, "makedumpfile-1.7.6-x86_64-zstd-split1.kdump"), vmcoretest.Sample(f, "makedumpfile-1.7.6-x86_64-zstd-split2.kdump"))
	d, _ := sampleDump(le, 6, 4096)
	d.split = &mem.Extent{Count: 6}
	low := d.bytes()
	d.split = &mem.Extent{Start: 6, Count: 40000}
	f.Add(low, d.bytes())
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var pieces []*kdumpfile.Reader
		for _, file := range [][]byte{a, b} {
			if r, err := kdumpfile.New(bytes.NewReader(file), int64(len(file))); err == nil {
				pieces = append(pieces, r)
			}
		}
		if len(pieces) == 0 {
			return
		}
		s, err := kdumpfile.Join(pieces)
		if err != nil {
			if s != nil || !errors.Is(err, kdumpfile.ErrOtherSet) {
				t.Fatalf("%v, %v", s, err)
			}
			return
		}
		page, next, total := make([]byte, s.Info().PageSize), mem.PFN(0), 0
		for e, err := range s.HeldPages() {
			if err != nil {
				t.Fatal(err)
			}
			if e.Start < next || e.Count == 0 {
				t.Fatalf("%v comes after pfn %d", e, next)
			}
			next = e.End()
			for pfn := e.Start; pfn < e.End() && total < 300; pfn++ {
				total++
				if err := s.ReadPage(page, pfn); err != nil && !errors.Is(err, vmcore.ErrCorrupt) && !errors.Is(err, vmcore.ErrTruncated) {
					t.Fatalf("pfn %d is held: %v", pfn, err)
				}
			}
		}
	})
}
