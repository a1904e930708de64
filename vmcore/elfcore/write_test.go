package elfcore_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"testing"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// fakeImage has pages whose first bytes are their frame number.
type fakeImage struct {
	info  *vmcore.Info
	ram   []mem.Range
	pages []mem.Extent
	bad   map[mem.PFN]error
}

func (f *fakeImage) Info() *vmcore.Info { return f.info }
func (f *fakeImage) RAM() []mem.Range   { return f.ram }
func (f *fakeImage) Close() error       { return nil }

func (f *fakeImage) Pages() iter.Seq2[mem.Extent, error] {
	return func(yield func(mem.Extent, error) bool) {
		for _, e := range f.pages {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (f *fakeImage) ReadPhys([]byte, mem.PhysAddr) error { return errors.ErrUnsupported }

func (f *fakeImage) ReadPage(p []byte, pfn mem.PFN) error {
	if err := f.bad[pfn]; err != nil {
		return err
	}
	if !slices.ContainsFunc(f.pages, func(e mem.Extent) bool { return e.Contains(pfn) }) {
		return vmcore.ErrExcluded
	}
	clear(p)
	le.PutUint64(p, uint64(pfn)+1)
	return nil
}

func fake(ram []mem.Range, pages ...mem.Extent) *fakeImage {
	i := &vmcore.Info{Machine: 62, ByteOrder: le, PageSize: page, MaxPFN: 1 << 20}
	i.AddNotes(vmcoretest.VMCOREINFO(le, "PAGESIZE=4096\n"))
	return &fakeImage{info: i, ram: ram, pages: pages}
}

func write(t *testing.T, img vmcore.Image, opt elfcore.WriteOptions) ([]byte, elfcore.WriteStats) {
	t.Helper()
	var out bytes.Buffer
	st, err := elfcore.Write(context.Background(), &out, img, opt)
	if err != nil {
		t.Fatal(err)
	}
	if st.Bytes != int64(out.Len()) {
		t.Errorf("stats say %d bytes, %d were written", st.Bytes, out.Len())
	}
	return out.Bytes(), st
}

func pfns(start, count uint64) mem.Extent { return mem.Extent{Start: mem.PFN(start), Count: count} }

func TestWriteSegments(t *testing.T) {
	ram := []mem.Range{{Start: 0x1000, End: 0x9fc00}, {Start: 0x100000, End: 0x2000000}, {Start: 0x40000000, End: 0x40100000}}
	img := fake(ram, pfns(1, 10), pfns(20, 1), pfns(0x100, 1), pfns(0x201, 1), pfns(0x2ff, 1), pfns(0x1000, 0x1000))
	b, st := write(t, img, elfcore.WriteOptions{})
	f := open(t, b)
	type s struct{ start, filled, count uint64 }
	var got []s
	for _, g := range f.Info().Segments {
		got = append(got, s{uint64(g.Paddr) / page, g.Filesz / page, g.Memsz / page})
	}
	want := []s{
		{1, 20, 0x9f},     // the gap of 9 pages is filled, the end is not
		{0x100, 1, 0x101}, // 255 pages of gap would be filled, 256 are not
		{0x201, 0xff, 0xdff},
		{0x1000, 0x1000, 0x1000},
		{0x40000, 0, 0x100}, // no page of it, but memory
	}
	if !slices.Equal(got, want) {
		t.Errorf("segments %#x, want %#x", got, want)
	}
	if st.Segments != len(want) || st.Pages != 10+1+1+1+1+0x1000 || st.Zeroed != 9+0xfd || st.Lost != 0 {
		t.Errorf("stats %+v", st)
	}
	p, q := make([]byte, page), make([]byte, page)
	for _, e := range img.pages {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if err := errors.Join(f.ReadPage(p, pfn), img.ReadPage(q, pfn)); err != nil || !bytes.Equal(p, q) {
				t.Fatalf("pfn %d: %v", pfn, err)
			}
		}
	}
	for pfn, want := range map[mem.PFN]error{0: vmcore.ErrNotPresent, 15: nil, 21: vmcore.ErrExcluded, 0x400: vmcore.ErrExcluded, 0x40000: vmcore.ErrExcluded, 0x2000: vmcore.ErrNotPresent} {
		if err := f.ReadPage(p, pfn); !errors.Is(err, want) {
			t.Errorf("pfn %#x: got %v, want %v", uint64(pfn), err, want)
		}
	}
	if !bytes.Equal(f.Info().Notes, img.info.Notes) || f.Info().Incomplete {
		t.Error("notes or mark differ")
	}
}

func TestWriteLostPages(t *testing.T) {
	img := fake([]mem.Range{{Start: 0x1000, End: 0x9000}}, pfns(1, 8))
	img.bad = map[mem.PFN]error{2: vmcore.ErrIncomplete, 3: vmcore.ErrCorrupt, 4: vmcore.ErrTruncated}
	img.info.Incomplete = true
	b, st := write(t, img, elfcore.WriteOptions{})
	if st.Lost != 3 || st.Pages != 5 {
		t.Errorf("stats %+v", st)
	}
	f := open(t, b)
	if !f.Info().Incomplete {
		t.Error("the mark of an incomplete dump is gone")
	}
	p := make([]byte, page)
	if err := f.ReadPage(p, 3); err != nil || !bytes.Equal(p, make([]byte, page)) {
		t.Errorf("a lost page: %v", err)
	}
	disk := errors.New("disk on fire")
	img.bad[5] = disk
	if _, err := elfcore.Write(context.Background(), &bytes.Buffer{}, img, elfcore.WriteOptions{}); !errors.Is(err, disk) {
		t.Errorf("got %v", err)
	}
}

func TestWriteAddresses(t *testing.T) {
	c, _ := kexecCore(le)
	core := open(t, c.Bytes())
	b, _ := write(t, core, elfcore.WriteOptions{})
	for _, g := range open(t, b).Info().Segments {
		if want := mem.VirtAddr(0xffff888000000000) + mem.VirtAddr(g.Paddr); g.Vaddr != want {
			t.Errorf("paddr %v: vaddr %v, want %v", g.Paddr, g.Vaddr, want)
		}
	}
	text := core.Info().Segments[0]
	b, st := write(t, core, elfcore.WriteOptions{
		Text:  text,
		Vaddr: func(a mem.PhysAddr) mem.VirtAddr { return 0xff11000000000000 + mem.VirtAddr(a) },
	})
	segs := open(t, b).Info().Segments
	if st.Segments != 3 || len(segs) != 3 || segs[0].Vaddr != text.Vaddr || segs[0].Paddr != text.Paddr || segs[0].Filesz != text.Memsz {
		t.Fatalf("segments %v", segs)
	}
	if got := b[segs[0].Offset:][:page]; !bytes.Equal(got, c.Loads[0].Data[:page]) {
		t.Error("the segment of the kernel image points elsewhere")
	}
	if segs[2].Vaddr != 0xff11000000100000 {
		t.Errorf("vaddr %v", segs[2].Vaddr)
	}
}

// TestWriteRoundTrip writes big-endian and real cores and compares every page.
func TestWriteRoundTrip(t *testing.T) {
	big, _ := kexecCore(be)
	for name, b := range map[string][]byte{
		"big endian": big.Bytes(),
		"real":       vmcoretest.Sample(t, "vmcore-6.1-x86_64-tiny.elf"),
		"makedumpfile": vmcoretest.Sample(t,
			"makedumpfile-1.7.6-x86_64.elf"),
	} {
		t.Run(name, func(t *testing.T) {
			core := open(t, b)
			out, st := write(t, core, elfcore.WriteOptions{})
			again := open(t, out)
			p, q := make([]byte, page), make([]byte, page)
			var n uint64
			for _, e := range extents(t, core) {
				for pfn := e.Start; pfn < e.End(); pfn++ {
					n++
					if err := errors.Join(core.ReadPage(p, pfn), again.ReadPage(q, pfn)); err != nil || !bytes.Equal(p, q) {
						t.Errorf("pfn %d: %v", pfn, err)
					}
				}
			}
			if n < 9 || st.Pages != n || again.Info().MaxPFN != core.Info().MaxPFN || !bytes.Equal(again.Info().Notes, core.Info().Notes) {
				t.Errorf("%d pages, stats %+v", n, st)
			}
		})
	}
}

func TestWriteScattered(t *testing.T) {
	img := fake([]mem.Range{{Start: 0, End: 1 << 44}})
	for i := range uint64(100000) {
		img.pages = append(img.pages, pfns(i*300, 1))
	}
	// Counting is enough: the file would have 120 GB of zeros.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out bytes.Buffer
	st, err := elfcore.Write(ctx, &out, img, elfcore.WriteOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if st.Segments == 0 || st.Segments >= 0xffff {
		t.Errorf("%d segments", st.Segments)
	}
}

// brokenPipe takes n bytes.
type brokenPipe struct{ n int }

var errPipe = errors.New("broken pipe")

func (w *brokenPipe) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errPipe
	}
	return len(p), nil
}

func TestWriteErrors(t *testing.T) {
	img := fake([]mem.Range{{Start: 0x1000, End: 0x9000}}, pfns(1, 8))
	for _, n := range []int{0, page, 2 * page} {
		if _, err := elfcore.Write(context.Background(), &brokenPipe{n}, img, elfcore.WriteOptions{}); !errors.Is(err, errPipe) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

// FuzzNew opens anything, strictly and tolerantly; what can be read stays the same
// when it is written as a new core.
func FuzzNew(f *testing.F) {
	for _, name := range vmcoretest.Samples(f, "vmcore-") {
		f.Add(vmcoretest.Sample(f, name), uint32(0))
		f.Add(vmcoretest.Sample(f, name), uint32(1<<30))
	}
	f.Add(vmcoretest.Sample(f, "makedumpfile-1.7.6-x86_64.elf"), uint32(0))
	for _, o := range []vmcoretest.Order{le, be} {
		c, _ := kexecCore(o)
		c.ManyPhdrs = true
		f.Add(c.Bytes(), uint32(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, more uint32) {
		size := int64(len(b)) + int64(more)
		strict, err := elfcore.New(padded{b}, size)
		if err != nil && (strict != nil || !isFormatError(err)) {
			t.Fatalf("%v, %v", strict, err)
		}
		core, err := elfcore.NewTolerant(padded{b}, size)
		if err != nil {
			if core != nil || strict != nil || !isFormatError(err) {
				t.Fatalf("%v, strict %v: %v", core, strict, err)
			}
			return
		}
		checkCore(t, core)
		if strict != nil && !slices.Equal(strict.RAM(), core.RAM()) {
			t.Fatalf("RAM %v, tolerant %v", strict.RAM(), core.RAM())
		}
	})
}

func isFormatError(err error) bool {
	for _, want := range []error{vmcore.ErrUnknownFormat, vmcore.ErrUnsupported, vmcore.ErrCorrupt, vmcore.ErrTruncated} {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}

func checkCore(t *testing.T, core *elfcore.File) {
	t.Helper()
	i := core.Info()
	var last mem.PhysAddr
	for _, r := range core.RAM() {
		if r.Start < last || r.Len() == 0 {
			t.Fatalf("RAM %v", core.RAM())
		}
		last = r.End
	}
	if len(i.Warnings) > 64 || i.MaxPFN == 0 || i.MaxPFN > 1<<40 {
		t.Fatalf("%d warnings, max_mapnr %d", len(i.Warnings), i.MaxPFN)
	}
	p := make([]byte, i.PageSize)
	q := make([]byte, i.PageSize)
	var held []mem.Extent
	for e, err := range core.HeldPages() {
		if err != nil || e.Count == 0 || len(held) > 0 && e.Start < held[len(held)-1].End() {
			t.Fatalf("held %v after %v: %v", e, held, err)
		}
		held = append(held, e)
	}
	end, n := mem.PFN(0), 0
	for e, err := range core.Pages() {
		if err != nil || e.Start < end || !e.Valid(i.MaxPFN) {
			t.Fatalf("%v after %d of %d: %v", e, end, i.MaxPFN, err)
		}
		end = e.End()
		for pfn := e.Start; pfn < e.End() && n < 200; pfn++ {
			n++
			err := core.ReadPage(p, pfn)
			if held := slices.ContainsFunc(held, func(e mem.Extent) bool { return e.Contains(pfn) }); held != (err == nil) || !held && !errors.Is(err, vmcore.ErrTruncated) {
				t.Fatalf("pfn %d: held %v, %v", pfn, held, err)
			}
			if err != nil {
				continue
			}
			if err := core.ReadPhys(q[:100], pfn.Addr(i.PageShift())); err != nil {
				t.Fatalf("pfn %d: %v", pfn, err)
			}
			if !bytes.Equal(p[:100], q[:100]) {
				t.Fatalf("pfn %d reads in two ways", pfn)
			}
		}
	}
	rewrite(t, core)
}

func rewrite(t *testing.T, core *elfcore.File) {
	t.Helper()
	var pages uint64
	for e, err := range core.HeldPages() {
		if err != nil {
			t.Fatal(err)
		}
		pages += e.Count
	}
	if pages > 100 || core.RAM()[0].Len() > 1<<40 {
		return
	}
	var out bytes.Buffer
	st, err := elfcore.Write(context.Background(), &limited{&out, 64 << 20}, core, elfcore.WriteOptions{})
	if errors.Is(err, errPipe) {
		return // gaps below 256 pages between pages of 64 KiB
	}
	if err != nil || st.Pages != pages || st.Lost != 0 {
		t.Fatalf("%+v of %d pages: %v", st, pages, err)
	}
	again, err := elfcore.New(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if pages == 0 {
		return // a core without a page is refused
	}
	if err != nil {
		t.Fatal(err)
	}
	if again.Info().PageSize != core.Info().PageSize || again.Info().Machine != core.Info().Machine {
		t.Fatal("another machine")
	}
	p, q := make([]byte, core.Info().PageSize), make([]byte, core.Info().PageSize)
	for e, err := range core.Pages() {
		if err != nil {
			t.Fatal(err)
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if err := errors.Join(core.ReadPage(p, pfn), again.ReadPage(q, pfn)); err != nil || !bytes.Equal(p, q) {
				t.Fatalf("pfn %d: %v", pfn, err)
			}
		}
	}
}

// limited is a writer that breaks after n bytes.
type limited struct {
	out *bytes.Buffer
	n   int
}

func (w *limited) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errPipe
	}
	return w.out.Write(p)
}
