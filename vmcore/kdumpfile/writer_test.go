package kdumpfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

func testHeader(o vmcoretest.Order, pageSize int) *kdumpfile.Header {
	s := mem.PhysAddr(pageSize)
	return &kdumpfile.Header{
		Utsname:   uts.Name{Sysname: "Linux", Nodename: "lab-guest", Release: "6.1.0", Version: "#1", Machine: "x86_64", Domainname: "(none)"},
		Time:      time.Unix(1763870240, 123456789).UTC(),
		ByteOrder: o, PageSize: pageSize, MaxPFN: 70000, NrCPUs: 2, CurrentCPU: 1,
		PhysBase: 0xffffffffd4000000, DumpLevel: 31, Status: uint32(kdumpfile.Snappy),
		Notes: append(vmcoretest.Prstatus(o, 1, nil), vmcoretest.VMCOREINFO(o, "OSRELEASE=6.1.0\n")...),
		RAM:   []mem.Range{{Start: s, End: 160*s - 1000}, {Start: 32000 * s, End: 66000 * s}, {Start: 69999 * s, End: 70000 * s}},
	}
}

var testPlan = []mem.Extent{{Start: 1, Count: 100}, {Start: 120, Count: 20}, {Start: 32700, Count: 200}, {Start: 65536, Count: 1}, {Start: 69999, Count: 1}}

func seq(e []mem.Extent) iter.Seq[mem.Extent] { return slices.Values(e) }

// filler puts pages into a dump and remembers them.
type filler struct {
	t   testing.TB
	f   *memFile
	w   *kdumpfile.Writer
	enc *kdumpfile.Encoder
	off int64
	raw map[uint64][]byte
	n   uint64
}

func newFiller(tb testing.TB, h *kdumpfile.Header, plan []mem.Extent) *filler {
	tb.Helper()
	f := &memFile{b: []byte("something old")}
	w, err := kdumpfile.Create(f, h, seq(plan))
	if err != nil {
		tb.Fatal(err)
	}
	enc, err := kdumpfile.NewEncoder(kdumpfile.Snappy, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return &filler{t: tb, f: f, w: w, enc: enc, off: w.Layout().FirstPage(), raw: map[uint64][]byte{}}
}

func (x *filler) put(e mem.Extent) {
	x.t.Helper()
	size := x.w.Layout().PageSize
	x.n++
	if x.n%3 == 0 {
		if err := x.w.PutZero(e); err != nil {
			x.t.Fatal(err)
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			x.raw[uint64(pfn)] = make([]byte, size)
		}
		return
	}
	pages := vmcoretest.Pages(x.n, int(e.Count), size)
	var descs []kdumpfile.PageDesc
	for i := range int(e.Count) {
		page := pages[i*size : (i+1)*size]
		stored, flags := x.enc.EncodePage(nil, page)
		if _, err := x.f.WriteAt(stored, x.off); err != nil {
			x.t.Fatal(err)
		}
		descs = append(descs, kdumpfile.PageDesc{Offset: x.off, Size: uint32(len(stored)), Flags: flags})
		x.off += int64(len(stored))
		x.raw[uint64(e.Start)+uint64(i)] = page
	}
	if err := x.w.PutPages(e, descs); err != nil {
		x.t.Fatal(err)
	}
}

// shuffled cuts the plan into small runs in random order.
func shuffled(plan []mem.Extent, seed uint64) []mem.Extent {
	r := rand.New(rand.NewPCG(seed, 2))
	var all []mem.Extent
	for _, e := range plan {
		for e.Count > 0 {
			n := min(e.Count, 1+r.Uint64N(64))
			all = append(all, mem.Extent{Start: e.Start, Count: n})
			e = mem.Extent{Start: e.Start + mem.PFN(n), Count: e.Count - n}
		}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func ramExtents(h *kdumpfile.Header) []mem.Extent {
	return slices.Collect(kdumpfile.RAMExtents(h.RAM, vmcore.PageShift(h.PageSize), h.MaxPFN))
}

func TestWriteComplete(t *testing.T) {
	for name, o := range map[string]vmcoretest.Order{"little": le, "big": be} {
		for _, size := range vmcore.PageSizes {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				h := testHeader(o, size)
				x := newFiller(t, h, testPlan)
				for i, e := range shuffled(testPlan, 1) {
					if i == 3 {
						checkGrowing(t, x)
					}
					x.put(e)
				}
				if x.w.Missing() != 0 || x.w.Present() != x.w.Planned() || x.w.Planned() != 322 {
					t.Fatalf("%d of %d present, %d missing", x.w.Present(), x.w.Planned(), x.w.Missing())
				}
				if err := x.w.SealComplete(); err != nil {
					t.Fatal(err)
				}
				r := open(t, x.f.b)
				checkPages(t, r, x.raw, ramExtents(h))
				checkHeader(t, r, h, false)
				if err := x.w.PutZero(mem.Extent{Start: 1, Count: 1}); !errors.Is(err, kdumpfile.ErrSealed) {
					t.Errorf("PutZero after the seal: %v", err)
				}
			})
		}
	}
}

// checkGrowing reads a dump that is not sealed yet.
func checkGrowing(t *testing.T, x *filler) {
	t.Helper()
	if err := x.w.SealComplete(); !errors.Is(err, kdumpfile.ErrMissing) {
		t.Fatalf("SealComplete with %d missing: %v", x.w.Missing(), err)
	}
	r := open(t, x.f.b)
	if !r.Info().Incomplete {
		t.Error("a growing dump is not marked incomplete")
	}
	p := make([]byte, r.Info().PageSize)
	for e := range seq(testPlan) {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			err := r.ReadPage(p, pfn)
			want, ok := x.raw[uint64(pfn)]
			if ok && (err != nil || !bytes.Equal(p, want)) || !ok && !errors.Is(err, vmcore.ErrIncomplete) {
				t.Fatalf("pfn %d, there %v: %v", pfn, ok, err)
			}
		}
	}
}

func checkHeader(t *testing.T, r *kdumpfile.Reader, want *kdumpfile.Header, incomplete bool) {
	t.Helper()
	got, i := r.Header(), r.Info()
	if got.Utsname != want.Utsname || !got.Time.Equal(want.Time.Truncate(time.Microsecond)) || got.PageSize != want.PageSize ||
		got.MaxPFN != want.MaxPFN || got.NrCPUs != want.NrCPUs || got.CurrentCPU != want.CurrentCPU ||
		got.PhysBase != want.PhysBase || got.DumpLevel != want.DumpLevel || !bytes.Equal(got.Notes, want.Notes) {
		t.Errorf("got header %+v, want %+v", got, want)
	}
	if i.Incomplete != incomplete {
		t.Errorf("incomplete: got %v, want %v", i.Incomplete, incomplete)
	}
	if s, _ := i.VMCOREINFO.String("OSRELEASE"); s != "6.1.0" {
		t.Errorf("OSRELEASE %q", s)
	}
}

// TestHeaderBytes checks the fields at the offsets that other programs read them at
// (makedumpfile's diskdump_mod.h on a 64-bit machine).
func TestHeaderBytes(t *testing.T) {
	h := testHeader(le, 4096)
	h.MaxPFN = 1 << 33
	b, err := h.EncodeFront(true)
	if err != nil {
		t.Fatal(err)
	}
	bitmapBlocks := uint64(2 << 33 / 8 / 4096)
	notes := uint64(len(h.Notes))
	info, at := vmcore.FindVMCOREINFO(h.Notes, le)
	for _, tc := range []struct {
		name  string
		off   int
		width int
		want  uint64
	}{
		{"header_version", 8, 4, 6},
		{"tv_sec", 408, 8, 1763870240},
		{"tv_usec", 416, 8, 123456},
		{"status", 424, 4, 0x4 | 0x8},
		{"block_size", 428, 4, 4096},
		{"sub_hdr_size", 432, 4, 1},
		{"bitmap_blocks", 436, 4, bitmapBlocks},
		{"max_mapnr, clamped", 440, 4, 1<<32 - 1},
		{"total_ram_blocks", 444, 4, 0},
		{"device_blocks", 448, 4, 0},
		{"written_blocks", 452, 4, 0},
		{"current_cpu", 456, 4, 1},
		{"nr_cpus", 460, 4, 2},
		{"phys_base", 4096, 8, 0xffffffffd4000000},
		{"dump_level", 4096 + 8, 4, 31},
		{"split", 4096 + 12, 4, 0},
		{"offset_vmcoreinfo", 4096 + 32, 8, 4096 + 104 + uint64(at)},
		{"size_vmcoreinfo", 4096 + 40, 8, uint64(len(info))},
		{"offset_note", 4096 + 48, 8, 4096 + 104},
		{"size_note", 4096 + 56, 8, notes},
		{"offset_eraseinfo", 4096 + 64, 8, 0},
		{"size_eraseinfo", 4096 + 72, 8, 0},
		{"max_mapnr_64", 4096 + 96, 8, 1 << 33},
	} {
		got := uint64(le.Uint32(b[tc.off:]))
		if tc.width == 8 {
			got = le.Uint64(b[tc.off:])
		}
		if got != tc.want {
			t.Errorf("%s: got %#x, want %#x", tc.name, got, tc.want)
		}
	}
	if string(b[:8]) != "KDUMP   " || string(b[77:87]) != "lab-guest\x00" || string(b[272:279]) != "x86_64\x00" {
		t.Errorf("strings: %q", b[:400])
	}
	if len(b) != 8192 || !bytes.Equal(b[4096+104:][:len(h.Notes)], h.Notes) {
		t.Errorf("%d bytes, notes not at 104", len(b))
	}
}

func TestLongStringsAreCut(t *testing.T) {
	h := testHeader(le, 4096)
	h.Utsname.Nodename = string(bytes.Repeat([]byte{'n'}, 100))
	b, err := h.EncodeFront(false)
	if err != nil {
		t.Fatal(err)
	}
	if b[77+63] != 'n' || b[77+64] != 0 || string(b[142:147]) != "6.1.0" {
		t.Error("a long node name spills over")
	}
}

func TestSealPartial(t *testing.T) {
	for seed := range uint64(20) {
		h := testHeader(le, 4096)
		x := newFiller(t, h, testPlan)
		runs := shuffled(testPlan, seed)
		keep := int(seed) * len(runs) / 19
		for _, e := range runs[:keep] {
			x.put(e)
		}
		before := x.w.Layout()
		data := slices.Clone(x.f.b[before.Data:])
		if err := x.w.SealPartial(); err != nil {
			t.Fatal(err)
		}
		r := open(t, x.f.b)
		checkPages(t, r, x.raw, ramExtents(h))
		checkHeader(t, r, h, true)
		l := x.w.Layout()
		if l.Data != before.Data || l.Planned != uint64(len(x.raw)) || !bytes.Equal(x.f.b[l.Data:], data) {
			t.Fatalf("page data moved: %+v, then %+v", before, l)
		}
		if gap := x.f.b[l.DescsEnd():l.Data]; bytes.Count(gap, []byte{0}) != len(gap) {
			t.Error("the room behind the descriptors is not zero")
		}
		checkRebuild(t, x.f, h, l, true)
		for n, err := range allDescs(r) {
			if err != nil || n.Missing() {
				t.Fatalf("descriptor %+v: %v", n, err)
			}
		}
	}
}

func allDescs(r *kdumpfile.Reader) iter.Seq2[kdumpfile.PageDesc, error] {
	return func(yield func(kdumpfile.PageDesc, error) bool) {
		for e, err := range r.Pages() {
			for pfn := e.Start; err == nil && pfn < e.End(); pfn++ {
				d, _, err := r.Desc(pfn)
				if !yield(d, err) {
					return
				}
			}
		}
	}
}

// checkRebuild makes the front of a sealed file again, from what is in it and the
// place of its data, and compares: by CreateAt over a torn front, and piece by
// piece.
func checkRebuild(t *testing.T, f *memFile, h *kdumpfile.Header, l kdumpfile.Layout, partial bool) {
	t.Helper()
	r := open(t, f.b)
	pages := extents(t, r)
	torn := &memFile{b: slices.Clone(f.b)}
	for i := range l.Data {
		torn.b[i] = byte(i * 7)
	}
	w, err := kdumpfile.CreateAt(torn, h, seq(pages), kdumpfile.Options{DataOffset: l.Data, KeepData: true})
	if err != nil {
		t.Fatal(err)
	}
	front, err := h.EncodeFront(partial)
	if err != nil {
		t.Fatal(err)
	}
	built := front
	for _, e := range []iter.Seq[mem.Extent]{seq(ramExtents(h)), seq(pages)} {
		bitmap := make([]byte, l.BitmapLen)
		if err := kdumpfile.BitmapBlocks(l, e, func(off int64, b []byte) error { copy(bitmap[off:], b); return nil }); err != nil {
			t.Fatal(err)
		}
		built = append(built, bitmap...)
	}
	for _, e := range pages {
		var descs []kdumpfile.PageDesc
		for pfn := e.Start; pfn < e.End(); pfn++ {
			d, off, err := r.Desc(pfn)
			if err != nil || off != int64(len(built)) {
				t.Fatalf("pfn %d: descriptor at %d, want %d: %v", pfn, off, len(built), err)
			}
			built = d.Append(built, le)
			descs = append(descs, d)
		}
		if err := w.PutPages(e, descs); err != nil {
			t.Fatal(err)
		}
	}
	seal := w.SealComplete
	if partial {
		seal = w.SealPartial
	}
	if err := seal(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(torn.b, f.b) {
		t.Error("the front written again differs")
	}
	if !bytes.Equal(built, f.b[:len(built)]) || int64(len(built)) != l.DescsEnd() {
		t.Errorf("the front put together differs, or is %d bytes long, not %d", len(built), l.DescsEnd())
	}
}

func TestRebuildComplete(t *testing.T) {
	h := testHeader(le, 4096)
	x := newFiller(t, h, testPlan)
	for _, e := range shuffled(testPlan, 5) {
		x.put(e)
	}
	if err := x.w.SealComplete(); err != nil {
		t.Fatal(err)
	}
	checkRebuild(t, x.f, h, x.w.Layout(), false)
}

func TestPutErrors(t *testing.T) {
	x := newFiller(t, testHeader(le, 4096), testPlan)
	first := x.w.Layout().FirstPage()
	good := kdumpfile.PageDesc{Offset: first, Size: 4096}
	if err := x.w.PutPages(mem.Extent{Start: 5, Count: 1}, []kdumpfile.PageDesc{good}); err != nil {
		t.Fatal(err)
	}
	before := slices.Clone(x.f.b)
	for _, tc := range []struct {
		name  string
		e     mem.Extent
		descs []kdumpfile.PageDesc
		want  error
	}{
		{"already there", mem.Extent{Start: 5, Count: 1}, []kdumpfile.PageDesc{good}, kdumpfile.ErrAlreadyPresent},
		{"partly there", mem.Extent{Start: 4, Count: 2}, []kdumpfile.PageDesc{good, good}, kdumpfile.ErrAlreadyPresent},
		{"not planned", mem.Extent{Start: 110, Count: 1}, []kdumpfile.PageDesc{good}, kdumpfile.ErrNotPlanned},
		{"partly planned", mem.Extent{Start: 100, Count: 2}, []kdumpfile.PageDesc{good, good}, kdumpfile.ErrNotPlanned},
		{"at max_mapnr", mem.Extent{Start: 70000, Count: 1}, []kdumpfile.PageDesc{good}, kdumpfile.ErrNotPlanned},
		{"wraps", mem.Extent{Start: ^mem.PFN(0), Count: 2}, []kdumpfile.PageDesc{good, good}, kdumpfile.ErrNotPlanned},
		{"empty", mem.Extent{Start: 1}, nil, kdumpfile.ErrNotPlanned},
		{"too few descriptors", mem.Extent{Start: 1, Count: 2}, []kdumpfile.PageDesc{good}, kdumpfile.ErrBadDesc},
		{"points at the headers", mem.Extent{Start: 1, Count: 1}, []kdumpfile.PageDesc{{Offset: 4096, Size: 4096}}, kdumpfile.ErrBadDesc},
		{"points at nothing", mem.Extent{Start: 1, Count: 1}, []kdumpfile.PageDesc{{Size: 4096}}, kdumpfile.ErrBadDesc},
		{"no bytes", mem.Extent{Start: 1, Count: 1}, []kdumpfile.PageDesc{{Offset: first, Flags: 4}}, kdumpfile.ErrBadDesc},
		{"too long", mem.Extent{Start: 1, Count: 1}, []kdumpfile.PageDesc{{Offset: first, Size: 4097, Flags: 4}}, kdumpfile.ErrBadDesc},
		{"unknown codec", mem.Extent{Start: 1, Count: 1}, []kdumpfile.PageDesc{{Offset: first, Size: 1, Flags: 8}}, kdumpfile.ErrBadDesc},
	} {
		if err := x.w.PutPages(tc.e, tc.descs); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
	if !bytes.Equal(before, x.f.b) || x.w.Present() != 1 {
		t.Error("a refused call changed the file")
	}
}

func TestCreateErrors(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*kdumpfile.Header)
		plan   []mem.Extent
		want   error
	}{
		{"overlap", nil, []mem.Extent{{Start: 1, Count: 10}, {Start: 10, Count: 1}}, kdumpfile.ErrOrder},
		{"descending", nil, []mem.Extent{{Start: 50, Count: 10}, {Start: 10, Count: 1}}, kdumpfile.ErrOrder},
		{"empty run", nil, []mem.Extent{{Start: 1}}, kdumpfile.ErrOrder},
		{"not RAM", nil, []mem.Extent{{Start: 200, Count: 1}}, kdumpfile.ErrNotRAM},
		{"across a hole", nil, []mem.Extent{{Start: 150, Count: 31950}}, kdumpfile.ErrNotRAM},
		{"beyond max_mapnr", nil, []mem.Extent{{Start: 69999, Count: 2}}, kdumpfile.ErrNotRAM},
		{"page size", func(h *kdumpfile.Header) { h.PageSize = 8192 }, nil, nil},
		{"no pages", func(h *kdumpfile.Header) { h.MaxPFN = 0 }, nil, nil},
		{"too many pages", func(h *kdumpfile.Header) { h.MaxPFN = kdumpfile.MaxPFN + 1 }, nil, nil},
		{"dump level", func(h *kdumpfile.Header) { h.DumpLevel = 32 }, nil, nil},
		{"CPUs", func(h *kdumpfile.Header) { h.NrCPUs = -1 }, nil, nil},
	} {
		h := testHeader(le, 4096)
		if tc.change != nil {
			tc.change(h)
		}
		if _, err := kdumpfile.Create(&memFile{}, h, seq(tc.plan)); err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
	h := testHeader(le, 4096)
	l, err := h.Layout(322)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{l.Data - 4096, l.Data + 1, 4096} {
		if _, err := kdumpfile.CreateAt(&memFile{}, h, seq(testPlan), kdumpfile.Options{DataOffset: off}); err == nil {
			t.Errorf("data offset %d is accepted", off)
		}
	}
}

// brokenFile fails to write once armed.
type brokenFile struct {
	memFile
	broken bool
}

func (f *brokenFile) WriteAt(p []byte, off int64) (int, error) {
	if f.broken {
		return 0, errDisk
	}
	return f.memFile.WriteAt(p, off)
}

func TestWriterKeepsItsFirstError(t *testing.T) {
	f := &brokenFile{}
	w, err := kdumpfile.Create(f, testHeader(le, 4096), seq(testPlan))
	if err != nil {
		t.Fatal(err)
	}
	f.broken = true
	if err := w.PutZero(mem.Extent{Start: 1, Count: 1}); !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
	f.broken = false
	if err := w.PutZero(mem.Extent{Start: 2, Count: 1}); !errors.Is(err, errDisk) {
		t.Errorf("after the failure: got %v", err)
	}
	if err := w.SealPartial(); !errors.Is(err, errDisk) {
		t.Errorf("seal after the failure: got %v", err)
	}
}

// TestHugeMachine lays out a dump of a machine with memory up to 16 TiB in a sparse
// file.
func TestHugeMachine(t *testing.T) {
	if race.Enabled {
		t.Skip("one goroutine, which goes through bitmaps of 1 GiB: the race detector has nothing to find")
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "vmcore"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	const top = 16 << 40
	h := testHeader(le, 4096)
	h.MaxPFN = top / 4096
	h.RAM = []mem.Range{{Start: 0, End: 4 << 30}, {Start: 2 << 40, End: 2<<40 + 4<<30}, {Start: top - 4<<30, End: top}}
	plan := []mem.Extent{{Start: 0, Count: 1000}, {Start: 2 << 28, Count: 5}, {Start: top/4096 - 300, Count: 300}}
	w, err := kdumpfile.Create(f, h, seq(plan))
	if err != nil {
		t.Fatal(err)
	}
	if l := w.Layout(); l.BitmapLen != top/4096/8 || l.Planned != 1305 {
		t.Fatalf("%+v", l)
	}
	far := kdumpfile.PageDesc{Offset: 11 << 40, Size: 100, Flags: 4}
	last := mem.PFN(top/4096 - 1)
	if err := w.PutPages(mem.Extent{Start: last, Count: 1}, []kdumpfile.PageDesc{far}); err != nil {
		t.Fatal(err)
	}
	if err := w.PutZero(mem.Extent{Start: 2 << 28, Count: 5}); err != nil {
		t.Fatal(err)
	}
	if err := w.SealPartial(); err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := kdumpfile.New(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	if d, off, err := r.Desc(last); err != nil || d != far || off != w.Layout().DescOffset(5) {
		t.Errorf("last page: %+v at %#x, %v", d, off, err)
	}
	p := make([]byte, 4096)
	if err := r.ReadPage(p, 2<<28+4); err != nil || !bytes.Equal(p, make([]byte, 4096)) {
		t.Errorf("a zero page: %v", err)
	}
	if err := r.ReadPage(p, last); !errors.Is(err, vmcore.ErrTruncated) {
		t.Errorf("a page beyond the file: %v", err)
	}
	if !slices.Equal(r.RAM(), h.RAM) || r.Info().MaxPFN != top/4096 {
		t.Errorf("RAM %v", r.RAM())
	}
}

func TestBitmapBytes(t *testing.T) {
	const block, frames = 4096, 8 * 4096
	at := func(pfn, n uint64) mem.Range {
		return mem.Range{Start: mem.PFN(pfn).Addr(12), End: mem.PFN(pfn + n).Addr(12)}
	}
	for name, c := range map[string]struct {
		ram  []mem.Range
		want int64
	}{
		"no RAM":                 {nil, 0},
		"one frame":              {[]mem.Range{at(0, 1)}, 2 * block},
		"two in one block":       {[]mem.Range{at(0, 1), at(7, 1)}, 2 * block},
		"over a border":          {[]mem.Range{at(frames-1, 2)}, 4 * block},
		"neighbours":             {[]mem.Range{at(0, frames), at(frames, 1)}, 4 * block},
		"8 MiB at 70 TB":         {[]mem.Range{at(0, 256), at(70<<40>>12, 2048)}, 4 * block},
		"behind the last frame":  {[]mem.Range{at(0, 1), at(1<<36, 1)}, 2 * block},
		"part of a frame counts": {[]mem.Range{{Start: 1<<27 - 1, End: 1<<27 + 1}}, 4 * block},
	} {
		if got := kdumpfile.BitmapBytes(c.ram, 4096, 1<<36); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
}

func TestRAMExtents(t *testing.T) {
	ram := []mem.Range{{Start: 0x1000, End: 0x1800}, {Start: 0x1800, End: 0x4000}, {Start: 0x4000, End: 0x4000}, {Start: 0x9fff, End: 0x20000}}
	got := slices.Collect(kdumpfile.RAMExtents(ram, 12, 0x10))
	want := []mem.Extent{{Start: 1, Count: 1}, {Start: 2, Count: 2}, {Start: 9, Count: 7}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// FuzzWriter puts pages in any order, seals, and compares with a map.
func FuzzWriter(f *testing.F) {
	f.Add([]byte{0, 3, 1, 200, 2, 7, 40, 3}, true)
	f.Add([]byte{9, 9, 9, 9, 5, 1, 255, 255, 0, 0}, false)
	f.Fuzz(func(t *testing.T, ops []byte, big bool) {
		var o vmcoretest.Order = le
		if big {
			o = be
		}
		h := testHeader(o, 4096)
		x := newFiller(t, h, testPlan)
		for i := 0; i+1 < len(ops) && i < 40; i += 2 {
			run := testPlan[int(ops[i])%len(testPlan)]
			start := uint64(ops[i+1]) % run.Count
			e := mem.Extent{Start: run.Start + mem.PFN(start), Count: 1 + uint64(ops[i])%(run.Count-start)}
			fresh := true
			for pfn := e.Start; pfn < e.End(); pfn++ {
				if _, ok := x.raw[uint64(pfn)]; ok {
					fresh = false
				}
			}
			if !fresh {
				if err := x.w.PutZero(e); !errors.Is(err, kdumpfile.ErrAlreadyPresent) {
					t.Fatalf("%v again: %v", e, err)
				}
				continue
			}
			x.put(e)
		}
		if err := x.w.SealPartial(); err != nil {
			t.Fatal(err)
		}
		checkPages(t, open(t, x.f.b), x.raw, ramExtents(h))
	})
}
