package kdumpfile_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// FuzzReader opens anything. What it can read it writes out again, and reads back
// the same.
func FuzzReader(f *testing.F) {
	for _, name := range vmcoretest.Samples(f, ".kdump") {
		f.Add(vmcoretest.Sample(f, name))
	}
	for version := range uint32(7) {
		d, _ := sampleDump(le, version, 4096)
		f.Add(d.bytes())
	}
	d, _ := sampleDump(be, 6, 4096)
	f.Add(d.bytes())
	f.Add(withEraseinfo(d))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := kdumpfile.New(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if r != nil || !isFormatError(err) {
				t.Fatalf("%v, %v", r, err)
			}
			return
		}
		page := make([]byte, r.Info().PageSize)
		readable := map[mem.PFN][]byte{}
		var plan []mem.Extent
		total := uint64(0)
		for e, err := range r.Pages() {
			if err != nil {
				t.Fatal(err)
			}
			for pfn := e.Start; pfn < e.End() && total < 300; pfn++ {
				total++
				switch err := r.ReadPage(page, pfn); {
				case err == nil:
					readable[pfn] = bytes.Clone(page)
					plan = append(plan, mem.Extent{Start: pfn, Count: 1})
				case errors.Is(err, vmcore.ErrExcluded), errors.Is(err, vmcore.ErrNotPresent):
					t.Fatalf("pfn %d is one of Pages: %v", pfn, err)
				case !isFormatError(err):
					t.Fatal(err)
				}
			}
		}
		rewrite(t, r, plan, readable)
	})
}

func isFormatError(err error) bool {
	for _, want := range []error{vmcore.ErrUnknownFormat, vmcore.ErrUnsupported, vmcore.ErrCorrupt, vmcore.ErrTruncated, vmcore.ErrIncomplete} {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}

func rewrite(t *testing.T, r *kdumpfile.Reader, plan []mem.Extent, pages map[mem.PFN][]byte) {
	t.Helper()
	h := *r.Header()
	if h.MaxPFN > 1<<24 {
		return // too large for memory
	}
	h.DumpLevel, h.NrCPUs, h.CurrentCPU = 0, 0, 0 // may be absurd
	f := &memFile{}
	// A page that is not in the 1st bitmap cannot be planned.
	w, err := kdumpfile.Create(f, &h, seq(plan))
	if errors.Is(err, kdumpfile.ErrNotRAM) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	off := w.Layout().FirstPage()
	for pfn, page := range pages {
		stored, flags := kdumpfile.EncodePage(page, kdumpfile.Snappy)
		if _, err := f.WriteAt(stored, off); err != nil {
			t.Fatal(err)
		}
		d := kdumpfile.PageDesc{Offset: off, Size: uint32(len(stored)), Flags: flags}
		if err := w.PutPages(mem.Extent{Start: pfn, Count: 1}, []kdumpfile.PageDesc{d}); err != nil {
			t.Fatal(err)
		}
		off += int64(len(stored))
	}
	if err := w.SealComplete(); err != nil {
		t.Fatal(err)
	}
	again := open(t, f.b)
	if again.PageCount() != uint64(len(pages)) || again.Info().MaxPFN != r.Info().MaxPFN {
		t.Fatalf("%d pages of %d became %d", len(pages), r.Info().MaxPFN, again.PageCount())
	}
	got := make([]byte, h.PageSize)
	for pfn, page := range pages {
		if err := again.ReadPage(got, pfn); err != nil || !bytes.Equal(got, page) {
			t.Fatalf("pfn %d: %v", pfn, err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	h := testHeader(le, 4096)
	plan := []mem.Extent{{Start: 32000, Count: 4096}}
	x := newFiller(b, h, plan)
	for i := range mem.PFN(64) {
		x.put(mem.Extent{Start: 32000 + i*64, Count: 64})
	}
	r := open(b, x.f.b)
	p := make([]byte, 4096)
	b.Run("pages in order", func(b *testing.B) {
		b.SetBytes(4096)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if err := r.ReadPage(p, 32000+mem.PFN(i%4096)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("8 bytes anywhere", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			a := mem.PhysAddr(32000*4096 + (i*7919*8)%(256*4096))
			if err := r.ReadPhys(p[:8], a); err != nil {
				b.Fatal(err)
			}
		}
	})
}
