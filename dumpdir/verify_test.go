package dumpdir_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"path"
	"testing"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/internal/race"
)

// sealed makes a complete dump, or a partial one with the first chunks only.
func sealed(t *testing.T, m *dumpdirtest.Machine, chunks int) *dumpdirtest.FS {
	t.Helper()
	fsys := dumpdirtest.NewFS()
	w := start(t, fsys, dir, m)
	putAll(t, w, m.Chunks[:chunks])
	if _, err := w.Seal(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantClean(t, verify(t, fsys, dir))
	return fsys
}

// flip flips a bit of a file.
func flip(t *testing.T, fsys *dumpdirtest.FS, name string, off int64, bit int) {
	t.Helper()
	if !fsys.Flip(path.Join(dir, name), off, bit) {
		t.Fatalf("%s has no byte %d", name, off)
	}
}

// regions are the parts of a vmcore of 4 KiB blocks, as docs/layout.md has them.
type regions struct{ bitmap1, bitmap2, descs, descsEnd, data, firstPage, end int64 }

func regionsOf(t *testing.T, fsys *dumpdirtest.FS, present uint64) (r regions) {
	t.Helper()
	b, _ := fsys.Bytes(path.Join(dir, dumpdir.VMCoreName))
	sub := int64(binary.LittleEndian.Uint32(b[432:]))
	bitmaps := int64(binary.LittleEndian.Uint32(b[436:]))
	r.bitmap1 = (1 + sub) * 4096
	r.bitmap2 = r.bitmap1 + bitmaps*4096/2
	r.descs = r.bitmap2 + bitmaps*4096/2
	r.descsEnd = r.descs + int64(present)*24
	m := openDump(t, fsys, dir).Manifest()
	r.data = (r.descs + int64(m.Pages.Planned)*24 + 4095) / 4096 * 4096
	r.firstPage, r.end = r.data+4096, int64(len(b))
	return r
}

// where tells what a finding at an offset has to name.
func (r regions) where(off int64) (where string, pfn, chunk bool) {
	switch {
	case off < 4096:
		return "main header", false, false
	case off < 4096+104:
		return "sub header", false, false
	case off < r.bitmap1:
		return "notes", false, false
	case off < r.bitmap2:
		return "1st bitmap", true, false
	case off < r.descs:
		return "2nd bitmap", true, false
	case off < r.descsEnd:
		return "page_desc", true, true
	case off < r.firstPage:
		return "zero page or padding before it", false, false
	}
	return "page", true, true
}

// checkFlip flips one bit and wants exactly one finding that names it.
func checkFlip(t *testing.T, fsys *dumpdirtest.FS, r regions, off int64, bit int) {
	t.Helper()
	flip(t, fsys, dumpdir.VMCoreName, off, bit)
	rep := verify(t, fsys, dir)
	flip(t, fsys, dumpdir.VMCoreName, off, bit)
	if rep.Damaged != 1 {
		t.Fatalf("bit %d of byte %d: %d findings: %+v", bit, off, rep.Damaged, rep.Findings)
	}
	f := rep.Findings[0]
	where, pfn, chunk := r.where(off)
	if f.Field == "padding" {
		pfn = false
	}
	if f.File != dumpdir.VMCoreName || f.Where != where || (f.PFN != nil) != pfn || (f.Chunk != nil) != chunk ||
		off < f.Offset || off >= f.Offset+f.Length {
		t.Fatalf("bit %d of byte %d, in %s: found %+v", bit, off, where, f)
	}
}

func TestVerifyNamesEveryByte(t *testing.T) {
	m := dumpdirtest.NewMachine(43, 6, 2) // with pages of each codec and a zero page, in 30 KB
	for name, tc := range map[string]struct {
		chunks int
		step   int
	}{"complete": {len(m.Chunks), 1}, "partial": {2, 7}} {
		t.Run(name, func(t *testing.T) {
			fsys := sealed(t, m, tc.chunks)
			r := regionsOf(t, fsys, openDump(t, fsys, dir).Progress().Present)
			for off := int64(0); off < r.end; off += int64(tc.step * race.Stride(211)) {
				checkFlip(t, fsys, r, off, int(off%8))
			}
		})
	}
}

func TestVerifyNamesRandomBits(t *testing.T) {
	m := dumpdirtest.NewMachine(31, 900, 32)
	fsys := sealed(t, m, len(m.Chunks))
	r := regionsOf(t, fsys, 900)
	rnd := rand.New(rand.NewPCG(1, 2))
	edges := []int64{0, 4096, 4200, r.bitmap1, r.bitmap2, r.descs, r.descsEnd, r.data, r.firstPage, r.end}
	for i := 1; i < len(edges); i++ {
		if edges[i] == edges[i-1] {
			continue
		}
		for _, off := range []int64{edges[i-1], edges[i] - 1, edges[i-1] + rnd.Int64N(edges[i]-edges[i-1]), edges[i-1] + rnd.Int64N(edges[i]-edges[i-1])} {
			checkFlip(t, fsys, r, off, rnd.IntN(8))
		}
	}
}

// TestVerifyNamesTheRightPage compares what a finding names with the journal's own order of pages.
func TestVerifyNamesTheRightPage(t *testing.T) {
	m := dumpdirtest.NewMachine(32, 64, 16)
	fsys := sealed(t, m, len(m.Chunks))
	off := regionsOf(t, fsys, 64).firstPage
	for _, c := range m.Chunks {
		i := 0
		for _, e := range c.Extents {
			if e.Kind == chunk.Zero {
				continue
			}
			for pfn := e.Start; pfn < e.End(); pfn++ {
				last := off + int64(c.Pages[i].Size) - 1
				flip(t, fsys, dumpdir.VMCoreName, last, 3)
				f := verify(t, fsys, dir).Findings
				flip(t, fsys, dumpdir.VMCoreName, last, 3)
				if len(f) != 1 || f[0].PFN == nil || *f[0].PFN != pfn || *f[0].Chunk != c.Seq || f[0].Offset != off {
					t.Fatalf("pfn %d of chunk %d at %d: found %+v", pfn, c.Seq, off, f)
				}
				off += int64(c.Pages[i].Size)
				i++
			}
		}
	}
}

func TestVerifyOtherFiles(t *testing.T) {
	m := dumpdirtest.NewMachine(33, 40, 8)
	for state, chunks := range map[string]int{"complete": len(m.Chunks), "partial": 3} {
		clean := sealed(t, m, chunks)
		for _, name := range []string{dumpdir.LogName, dumpdir.ManifestName, dumpdir.JournalName, dumpdir.SumsName} {
			t.Run(state+" "+name, func(t *testing.T) {
				b, _ := clean.Bytes(path.Join(dir, name))
				for off := 0; off < len(b); off += race.Stride(211) {
					checkOther(t, clean, name, int64(off))
				}
			})
		}
	}
}

// checkOther flips a bit of a file that is not vmcore: the dump does not open, or a finding names the
// file, and none blames vmcore.
func checkOther(t *testing.T, fsys *dumpdirtest.FS, name string, off int64) {
	t.Helper()
	flip(t, fsys, name, off, int(off%8))
	defer flip(t, fsys, name, off, int(off%8))
	d, err := dumpdir.Open(fsys, dir)
	if isDamage(err) || errors.Is(err, dumpdir.ErrUnsupported) {
		return
	}
	if err != nil {
		t.Fatalf("byte %d: open: %v", off, err)
	}
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatalf("byte %d: %v", off, err)
	}
	named := false
	for _, f := range rep.Findings {
		named = named || f.File == name
		if f.File == dumpdir.VMCoreName {
			t.Fatalf("byte %d of %s: found %+v", off, name, f)
		}
	}
	if !named {
		t.Fatalf("byte %d of %s: found %+v", off, name, rep.Findings)
	}
}

func isDamage(err error) bool {
	_, ok := errors.AsType[*dumpdir.DamageError](err)
	return ok
}

func TestVerifyLengthsAndMissingFiles(t *testing.T) {
	m := dumpdirtest.NewMachine(34, 40, 8)
	clean := sealed(t, m, len(m.Chunks))
	for _, name := range []string{dumpdir.VMCoreName, dumpdir.LogName, dumpdir.ManifestName, dumpdir.SumsName} {
		fsys := clean.Clone()
		if err := fsys.Remove(path.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if rep := verify(t, fsys, dir); rep.OK() || rep.Findings[0].File != name {
			t.Errorf("without %s: %+v", name, rep.Findings)
		}
	}
	vm, _ := clean.Bytes(path.Join(dir, dumpdir.VMCoreName))
	for _, n := range []int{0, 1, 4096, 4100, len(vm) / 2, len(vm) - 1} {
		fsys := clean.Clone()
		fsys.SetBytes(path.Join(dir, dumpdir.VMCoreName), vm[:n])
		if rep := verify(t, fsys, dir); rep.OK() || rep.Findings[len(rep.Findings)-1].Where != "file" {
			t.Errorf("cut to %d bytes: %+v", n, rep.Findings)
		}
	}
	fsys := clean.Clone()
	fsys.SetBytes(path.Join(dir, dumpdir.VMCoreName), append(vm, 0))
	if rep := verify(t, fsys, dir); rep.Damaged != 1 || rep.Findings[0].Where != "file" {
		t.Errorf("one byte more: %+v", rep.Findings)
	}
}

func TestVerifyBoundsFindingsAndTellsProgress(t *testing.T) {
	m := dumpdirtest.NewMachine(35, 400, 32)
	fsys := sealed(t, m, len(m.Chunks))
	vm, _ := fsys.Bytes(path.Join(dir, dumpdir.VMCoreName))
	for i := range vm {
		vm[i] = ^vm[i]
	}
	fsys.SetBytes(path.Join(dir, dumpdir.VMCoreName), vm)
	var last, total int64
	rep, err := openDump(t, fsys, dir).Verify(t.Context(), dumpdir.VerifyOptions{
		MaxFindings: 10, Progress: func(d, n int64) { last, total = d, n },
	})
	if err != nil || len(rep.Findings) != 10 || rep.Damaged < 400 {
		t.Errorf("%d findings of %d, %v", len(rep.Findings), rep.Damaged, err)
	}
	if last != int64(len(vm)) || total != last {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openDump(t, fsys, dir).Verify(ctx, dumpdir.VerifyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestVerifyRawSum stores pages that decode, but not to what the sender read.
func TestVerifyRawSum(t *testing.T) {
	m := dumpdirtest.NewMachine(36, 40, 8)
	m.Chunks[2].RawSum ^= 1
	dec := dumpdir.NewPageDecoder(4096)
	for i, want := range map[int]bool{1: true, 2: false} {
		c := &m.Chunks[i]
		if sum, err := dec.Sum(c.Pages, c.Data); err != nil || (sum == c.RawSum) != want {
			t.Errorf("chunk %d: sum %016x, RawSum %016x, %v", i, sum, c.RawSum, err)
		}
	}
	fsys := dumpdirtest.NewFS()
	complete(t, fsys, dir, m)
	rep := verify(t, fsys, dir)
	if rep.Damaged != 1 || rep.Findings[0].Where != "chunk" || *rep.Findings[0].Chunk != 2 {
		t.Errorf("found %+v", rep.Findings)
	}
}

func TestVerifyFile(t *testing.T) {
	base := t.TempDir()
	m := dumpdirtest.NewMachine(37, 200, 16)
	res := complete(t, dumpdir.OS{}, base+"/d", m)
	rep, err := dumpdir.VerifyFile(t.Context(), res.VMCore, dumpdir.VerifyOptions{})
	if err != nil || !rep.OK() || rep.Progress.Present != 200 || rep.State != dumpdir.StateComplete {
		t.Errorf("%+v, %v", rep, err)
	}
	if _, err := dumpdir.VerifyFile(t.Context(), base+"/d/"+dumpdir.LogName, dumpdir.VerifyOptions{}); err == nil {
		t.Error("a log was verified as a dump")
	}
}
