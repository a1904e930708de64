package kdumpfile_test

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

func open(tb testing.TB, b []byte) *kdumpfile.Reader {
	tb.Helper()
	r, err := kdumpfile.New(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func extents(tb testing.TB, img vmcore.Image) []mem.Extent {
	tb.Helper()
	var all []mem.Extent
	for e, err := range img.Pages() {
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// checkPages reads all frames of r and compares them with raw; frames of ram that
// raw lacks must be excluded, others not present.
func checkPages(t *testing.T, r *kdumpfile.Reader, raw map[uint64][]byte, ram []mem.Extent) {
	t.Helper()
	p := make([]byte, r.Info().PageSize)
	for pfn := range uint64(r.Info().MaxPFN) + 2 {
		err := r.ReadPage(p, mem.PFN(pfn))
		has, hasErr := r.Has(mem.PFN(pfn))
		want := vmcore.ErrNotPresent
		if slices.ContainsFunc(ram, func(e mem.Extent) bool { return e.Contains(mem.PFN(pfn)) }) {
			want = vmcore.ErrExcluded
		}
		switch page, ok := raw[pfn]; {
		case hasErr != nil || has != ok:
			t.Fatalf("pfn %d: Has: got %v, %v, want %v", pfn, has, hasErr, ok)
		case !ok && !errors.Is(err, want):
			t.Fatalf("pfn %d: got %v, want %v", pfn, err, want)
		case ok && err != nil:
			t.Fatalf("pfn %d: %v", pfn, err)
		case ok && !bytes.Equal(p, page):
			t.Fatalf("pfn %d: wrong contents", pfn)
		}
	}
}

func TestReadVersions(t *testing.T) {
	for version := range uint32(7) {
		for name, o := range map[string]vmcoretest.Order{"little": le, "big": be} {
			for _, size := range vmcore.PageSizes {
				t.Run(fmt.Sprintf("v%d %s endian %d", version, name, size), func(t *testing.T) {
					d, raw := sampleDump(o, version, size)
					r := open(t, d.bytes())
					checkPages(t, r, raw, d.ram)
					checkInfo(t, r.Info(), version)
				})
			}
		}
	}
}

func checkInfo(t *testing.T, i *vmcore.Info, version uint32) {
	t.Helper()
	if i.Format != vmcore.FormatKdump || i.Machine != elf.EM_X86_64 || i.MaxPFN != 40000 || i.PhysBase != 0x1000000 {
		t.Errorf("got %v %v, max_mapnr %d, phys_base %#x", i.Format, i.Machine, i.MaxPFN, i.PhysBase)
	}
	if i.Utsname.Nodename != "lab-guest" || i.Utsname.Domainname != "(none)" {
		t.Errorf("utsname: %+v", i.Utsname)
	}
	if i.Timestamp.Unix() != 1763870240 || i.Timestamp.Nanosecond() != 123456000 {
		t.Errorf("timestamp: %v", i.Timestamp)
	}
	wantLevel, wantCPUs := 31, 1
	if version < 1 {
		wantLevel = -1
	}
	if version < 4 {
		wantCPUs = 0
	}
	if i.DumpLevel != wantLevel || len(i.CPUs) != wantCPUs {
		t.Errorf("dump level %d, %d CPUs, want %d and %d", i.DumpLevel, len(i.CPUs), wantLevel, wantCPUs)
	}
	if _, ok := i.VMCOREINFO.String("OSRELEASE"); ok != (version >= 3) {
		t.Errorf("OSRELEASE is there: %v", ok)
	}
	if i.Incomplete || len(i.Warnings) != 0 {
		t.Errorf("incomplete %v, warnings %q", i.Incomplete, i.Warnings)
	}
}

func TestOneBitmap(t *testing.T) {
	d, _ := sampleDump(le, 6, 4096)
	raw := map[uint64][]byte{}
	d.pages = map[uint64]storedPage{}
	data := vmcoretest.Pages(1, 30, 4096)
	for _, e := range d.ram {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			page := data[len(raw)*4096:][:4096]
			raw[uint64(pfn)] = page
			d.pages[uint64(pfn)] = storedPage{page, 0}
		}
	}
	d.oneBitmap = true
	checkPages(t, open(t, d.bytes()), raw, d.ram)
}

func TestSplit(t *testing.T) {
	for _, version := range []uint32{2, 6} {
		d, raw := sampleDump(le, version, 4096)
		for _, piece := range []mem.Extent{{Count: 6}, {Start: 6, Count: 32762}, {Start: 32768, Count: 40000 - 32768}, {Start: 40000}} {
			d.split = &piece
			r := open(t, d.bytes())
			mine := map[uint64][]byte{}
			for pfn, p := range raw {
				if piece.Contains(mem.PFN(pfn)) {
					mine[pfn] = p
				}
			}
			checkPages(t, r, mine, d.ram)
			var n uint64
			for _, e := range extents(t, r) {
				n += e.Count
			}
			if n != uint64(len(mine)) || r.PageCount() != n {
				t.Errorf("piece %v: %d pages, PageCount %d, want %d", piece, n, r.PageCount(), len(mine))
			}
			if got, ok := r.Split(); !ok || got != piece {
				t.Errorf("Split: got %v, %v, want %v", got, ok, piece)
			}
		}
	}
}

// TestRealFiles compares what makedumpfile made of a core with the core.
func TestRealFiles(t *testing.T) {
	core := vmcoretest.Sample(t, "vmcore-6.1-x86_64-tiny.elf")
	want, err := elfcore.New(bytes.NewReader(core), int64(len(core)))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range vmcoretest.Samples(t, "x86_64-") {
		if !strings.HasSuffix(name, ".kdump") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			r := open(t, vmcoretest.Sample(t, name))
			if got, want := r.Info().MaxPFN, want.Info().MaxPFN; got != want {
				t.Errorf("max_mapnr: got %d, want %d", got, want)
			}
			if !bytes.Equal(r.Info().Notes, want.Info().Notes) {
				t.Error("other notes")
			}
			if got := r.Info().Utsname.Release; got != "6.1.0-56-cloud-amd64" {
				t.Errorf("release: got %q", got)
			}
			comparePages(t, r, want, !strings.Contains(name, "split"))
		})
	}
}

func comparePages(t *testing.T, got, want vmcore.Image, all bool) {
	t.Helper()
	a, b := make([]byte, 4096), make([]byte, 4096)
	n := 0
	for _, e := range extents(t, got) {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if err := errors.Join(got.ReadPage(a, pfn), want.ReadPage(b, pfn)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a, b) {
				t.Errorf("pfn %d differs", pfn)
			}
			n++
		}
	}
	if all && (n < 15 || !slices.Equal(mergeAll(extents(t, got)), mergeAll(withoutTails(extents(t, want), want)))) {
		t.Errorf("pages %v, want %v", extents(t, got), extents(t, want))
	}
}

// withoutTails drops the frames that RAM only begins to fill: makedumpfile does when its bitmaps lie in memory.
func withoutTails(list []mem.Extent, img vmcore.Image) []mem.Extent {
	for i := range list {
		for _, r := range img.RAM() {
			if r.End.PFN(12) == list[i].End()-1 {
				list[i].Count--
			}
		}
	}
	return list
}

func mergeAll(in []mem.Extent) []mem.Extent {
	var out []mem.Extent
	for _, e := range in {
		if n := len(out); n > 0 && out[n-1].End() == e.Start {
			out[n-1].Count += e.Count
		} else {
			out = append(out, e)
		}
	}
	return out
}

func TestReadPhys(t *testing.T) {
	d, raw := sampleDump(le, 6, 4096)
	r := open(t, d.bytes())
	p := make([]byte, 5000)
	for range 2 { // the second time from the cache
		if err := r.ReadPhys(p, 1*4096+100); err != nil {
			t.Fatal(err)
		}
		want := append(slices.Clone(raw[1][100:]), raw[2]...)[:5000]
		if !bytes.Equal(p, want) {
			t.Error("bytes across two pages differ")
		}
	}
	var addr *vmcore.AddrError
	err := r.ReadPhys(p, 2*4096)
	if !errors.Is(err, vmcore.ErrExcluded) || !errors.As(err, &addr) || addr.Addr != 3*4096 {
		t.Errorf("into an excluded page: %v", err)
	}
	if err := r.ReadPhys(p[:1], 0); !errors.Is(err, vmcore.ErrNotPresent) {
		t.Errorf("a hole: %v", err)
	}
	if err := r.ReadPhys(p, ^mem.PhysAddr(0)-10); !errors.Is(err, vmcore.ErrNotPresent) {
		t.Errorf("the end of the address space: %v", err)
	}
	if err := r.ReadPage(p, 1); !errors.Is(err, vmcore.ErrPageBuffer) {
		t.Errorf("a long buffer: %v", err)
	}
}

// descOf returns the offset of the descriptor of the first page, pfn 1.
func descOf(t *testing.T, b []byte) int64 {
	t.Helper()
	_, off, err := open(t, b).Desc(1)
	if err != nil {
		t.Fatal(err)
	}
	return off
}

func TestHostileDescriptors(t *testing.T) {
	d, _ := sampleDump(le, 6, 4096)
	good := d.bytes()
	at := descOf(t, good)
	for _, tc := range []struct {
		name string
		desc kdumpfile.PageDesc
		want error
	}{
		{"missing", kdumpfile.PageDesc{}, vmcore.ErrIncomplete},
		{"negative offset", kdumpfile.PageDesc{Offset: -1, Size: 4096}, vmcore.ErrCorrupt},
		{"in the main header", kdumpfile.PageDesc{Offset: 8, Size: 4096}, vmcore.ErrCorrupt},
		{"in the descriptors", kdumpfile.PageDesc{Offset: at, Size: 4096}, vmcore.ErrCorrupt},
		{"beyond the file", kdumpfile.PageDesc{Offset: 1 << 62, Size: 4096}, vmcore.ErrTruncated},
		{"across the end", kdumpfile.PageDesc{Offset: int64(len(good)) - 1, Size: 4096}, vmcore.ErrTruncated},
		{"sum overflows", kdumpfile.PageDesc{Offset: 1<<63 - 1, Size: 4096}, vmcore.ErrTruncated},
		{"size 0", kdumpfile.PageDesc{Offset: at + 9*24, Flags: 1}, vmcore.ErrCorrupt},
		{"size above a page", kdumpfile.PageDesc{Offset: at + 9*24, Size: 4097, Flags: 1}, vmcore.ErrCorrupt},
		{"size of 4 GiB", kdumpfile.PageDesc{Offset: at + 9*24, Size: 1<<32 - 1, Flags: 1}, vmcore.ErrCorrupt},
		{"short raw page", kdumpfile.PageDesc{Offset: at + 9*24, Size: 4095}, vmcore.ErrCorrupt},
		{"unknown flag", kdumpfile.PageDesc{Offset: at + 9*24, Size: 100, Flags: 0x40}, vmcore.ErrCorrupt},
		{"two flags", kdumpfile.PageDesc{Offset: at + 9*24, Size: 100, Flags: 5}, vmcore.ErrCorrupt},
		{"other codec than the bytes", kdumpfile.PageDesc{Offset: at + 9*24, Size: 4000, Flags: 0x20}, vmcore.ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := slices.Clone(good)
			copy(b[at:], tc.desc.Append(nil, le))
			p := make([]byte, 4096)
			r := open(t, b)
			if err := r.ReadPage(p, 1); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if err := r.ReadPhys(p[:10], 4096); !errors.Is(err, tc.want) {
				t.Errorf("ReadPhys: got %v, want %v", err, tc.want)
			}
			if err := r.ReadPage(p, 2); err != nil {
				t.Errorf("the next page: %v", err)
			}
		})
	}
}

func TestHostileHeaders(t *testing.T) {
	d, _ := sampleDump(le, 6, 4096)
	put32 := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint32(b[off:], v); return b }
	}
	put64 := func(off int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint64(b[off:], v); return b }
	}
	for _, tc := range []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"empty", func([]byte) []byte { return nil }, vmcore.ErrTruncated},
		{"other file", func(b []byte) []byte { b[0] = 'X'; return b }, vmcore.ErrUnknownFormat},
		{"diskdump", func(b []byte) []byte { copy(b, "DISKDUMP"); return b }, vmcore.ErrUnsupported},
		{"32-bit header", func(b []byte) []byte { le.PutUint32(b[428:], 0); le.PutUint32(b[416:], 4096); return b }, vmcore.ErrUnsupported},
		{"block size 0", put32(428, 0), vmcore.ErrCorrupt},
		{"block size 8192", put32(428, 8192), vmcore.ErrUnsupported},
		{"block size 12288", put32(428, 12288), vmcore.ErrCorrupt},
		{"block size of 4 GiB", put32(428, 1<<32-1), vmcore.ErrCorrupt},
		{"negative version", put32(8, 1<<31), vmcore.ErrCorrupt},
		{"no sub header", put32(432, 0), vmcore.ErrCorrupt},
		{"huge sub header", put32(432, 1<<31-1), vmcore.ErrCorrupt},
		{"sub header beyond the file", put32(432, 1000), vmcore.ErrTruncated},
		{"too few bitmap blocks", put32(436, 1), vmcore.ErrCorrupt},
		{"bitmaps beyond the file", put32(436, 1<<20), vmcore.ErrTruncated},
		{"max_mapnr 0", put64(4096+96, 0), vmcore.ErrCorrupt},
		{"max_mapnr absurd", put64(4096+96, 1<<63), vmcore.ErrCorrupt},
		{"max_mapnr above the bitmaps", put64(4096+96, 1<<30), vmcore.ErrCorrupt},
		{"notes of 16 EiB", put64(4096+56, 1<<63), vmcore.ErrCorrupt},
		{"notes beyond the file", put64(4096+48, 1<<40), vmcore.ErrTruncated},
		{"notes at a negative offset", put64(4096+48, 1<<63), vmcore.ErrCorrupt},
		{"split backwards", func(b []byte) []byte { le.PutUint32(b[4096+12:], 1); le.PutUint64(b[4096+80:], 9); return b }, vmcore.ErrCorrupt},
		{"cut in the main header", func(b []byte) []byte { return b[:400] }, vmcore.ErrTruncated},
		{"cut in the sub header", func(b []byte) []byte { return b[:4100] }, vmcore.ErrTruncated},
		{"cut in the notes", func(b []byte) []byte { return b[:4096+300] }, vmcore.ErrTruncated},
		{"cut in the bitmaps", func(b []byte) []byte { return b[:2*4096+5000] }, vmcore.ErrTruncated},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := tc.change(d.bytes())
			r, err := kdumpfile.New(bytes.NewReader(b), int64(len(b)))
			if !errors.Is(err, tc.want) || r != nil {
				t.Errorf("got %v, %v, want %v", r, err, tc.want)
			}
		})
	}
}

// TestCutAnywhere opens every prefix that ends after the bitmaps.
func TestCutAnywhere(t *testing.T) {
	d, raw := sampleDump(le, 6, 4096)
	whole := d.bytes()
	end := open(t, whole).Layout().Descs
	p := make([]byte, 4096)
	for n := len(whole) - 1; int64(n) >= end; n -= 7 * race.Stride(31) {
		r := open(t, whole[:n])
		lost := 0
		for pfn, want := range raw {
			err := r.ReadPage(p, mem.PFN(pfn))
			switch {
			case errors.Is(err, vmcore.ErrTruncated):
				lost++
			case err != nil:
				t.Fatalf("%d bytes, pfn %d: %v", n, pfn, err)
			case !bytes.Equal(p, want):
				t.Fatalf("%d bytes, pfn %d: wrong contents", n, pfn)
			}
		}
		if lost == 0 {
			t.Errorf("%d of %d bytes: nothing is lost", n, len(whole))
		}
	}
}

func TestAlternatingBitmapIsRefused(t *testing.T) {
	d := &dump{order: le, version: 6, pageSize: 4096, maxPFN: 1 << 24, pages: map[uint64]storedPage{}}
	b := d.bytes()
	l := open(t, b).Layout()
	for i := range l.BitmapLen {
		b[l.Bitmap1+i] = 0x55
	}
	if _, err := kdumpfile.New(bytes.NewReader(b), int64(len(b))); !errors.Is(err, vmcore.ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}

// failing is a file that cannot be read from offset at on.
type failing struct {
	io.ReaderAt
	at int64
}

var errDisk = errors.New("disk on fire")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, errDisk
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestDiskErrors(t *testing.T) {
	d, _ := sampleDump(le, 6, 4096)
	b := d.bytes()
	l := open(t, b).Layout()
	for _, at := range []int64{0, 4096, l.Bitmap1, l.Bitmap2} {
		if _, err := kdumpfile.New(failing{bytes.NewReader(b), at}, int64(len(b))); !errors.Is(err, errDisk) {
			t.Errorf("unreadable from %#x: %v", at, err)
		}
	}
	for _, at := range []int64{l.Descs, l.Data} {
		r, err := kdumpfile.New(failing{bytes.NewReader(b), at}, int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.ReadPage(make([]byte, 4096), 1); !errors.Is(err, errDisk) || errors.Is(err, vmcore.ErrCorrupt) {
			t.Errorf("unreadable from %#x: %v", at, err)
		}
	}
}

func TestConcurrentReads(t *testing.T) {
	d, raw := sampleDump(le, 6, 4096)
	r := open(t, d.bytes())
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			p := make([]byte, 4096)
			for i := range 200 {
				for pfn, want := range raw {
					n := 1 + (i*g)%4096
					if err := r.ReadPhys(p[:n], mem.PFN(pfn).Addr(12)); err != nil || !bytes.Equal(p[:n], want[:n]) {
						t.Errorf("pfn %d: %v", pfn, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
