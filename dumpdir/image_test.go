package dumpdir_test

import (
	"bytes"
	"errors"
	"path"
	"sync"
	"testing"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// openImage opens the memory of the dump in fsys.
func openImage(t *testing.T, fsys *dumpdirtest.FS) *dumpdir.Image {
	t.Helper()
	im, err := openDump(t, fsys, dir).OpenImage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = im.Close() })
	return im
}

// wantPages reads every page of the machine. Those in lost give ErrCorrupt, those of chunks from have on ErrIncomplete or ErrExcluded,
// and all others are right.
func wantPages(t *testing.T, im vmcore.Image, m *dumpdirtest.Machine, have int, lost map[mem.PFN]bool) {
	t.Helper()
	page := make([]byte, im.Info().PageSize)
	for i := range m.Chunks {
		for _, e := range m.Chunks[i].Extents {
			for pfn := e.Start; pfn < e.End(); pfn++ {
				err := im.ReadPage(page, pfn)
				physErr := im.ReadPhys(page[:8], pfn.Addr(12)+16)
				switch {
				case i >= have:
					if !errors.Is(err, vmcore.ErrIncomplete) && !errors.Is(err, vmcore.ErrExcluded) {
						t.Fatalf("pfn %d, which never came: %v", pfn, err)
					}
				case lost[pfn]:
					if !errors.Is(err, vmcore.ErrCorrupt) || !errors.Is(physErr, vmcore.ErrCorrupt) {
						t.Fatalf("pfn %d, which is damaged: %v, %v", pfn, err, physErr)
					}
				case err != nil || physErr != nil:
					t.Fatalf("pfn %d: %v, %v", pfn, err, physErr)
				default:
					if want := m.Page(pfn); !bytes.Equal(page[8:], want[8:]) || !bytes.Equal(page[:8], want[16:24]) {
						t.Fatalf("pfn %d has other contents", pfn)
					}
				}
			}
		}
	}
}

// TestImageOfAStoredDump reads whole, partial and arriving dumps.
func TestImageOfAStoredDump(t *testing.T) {
	m := dumpdirtest.NewMachine(70, 300, 16)
	arriving := dumpdirtest.NewFS()
	w := start(t, arriving, dir, m)
	putAll(t, w, m.Chunks[:5])
	for name, tc := range map[string]struct {
		fsys       *dumpdirtest.FS
		chunks     int
		incomplete bool
	}{
		"complete": {sealed(t, m, len(m.Chunks)), len(m.Chunks), false},
		"partial":  {sealed(t, m, 7), 7, true},
		"arriving": {arriving, 5, true},
	} {
		t.Run(name, func(t *testing.T) {
			im := openImage(t, tc.fsys)
			if im.Info().Incomplete != tc.incomplete || im.Info().Utsname.Release != "6.1.0-test" || im.Header().NrCPUs != 2 {
				t.Errorf("info %+v", im.Info())
			}
			wantPages(t, im, m, tc.chunks, nil)
			if found, n := im.Damage(); n != 0 || len(im.Unchecked()) > 0 {
				t.Errorf("damage %v", found)
			}
			if err := im.ReadPage(make([]byte, 4096), m.Facts.MaxPFN); !errors.Is(err, vmcore.ErrNotPresent) {
				t.Errorf("behind the last page: %v", err)
			}
			if err := im.ReadPage(make([]byte, 100), 1); !errors.Is(err, vmcore.ErrPageBuffer) {
				t.Errorf("a short buffer: %v", err)
			}
		})
	}
}

// TestImageLeavesOutEveryFlippedBit flips bits all over a vmcore: of a page it is that page which is refused and named, of the
// front it is nothing, because the journal says what has to be there.
func TestImageLeavesOutEveryFlippedBit(t *testing.T) {
	m := dumpdirtest.NewMachine(71, 12, 4)
	for name, chunks := range map[string]int{"complete": len(m.Chunks), "partial": 2} {
		t.Run(name, func(t *testing.T) {
			fsys := sealed(t, m, chunks)
			r := regionsOf(t, fsys, openDump(t, fsys, dir).Progress().Present)
			for off := int64(0); off < r.end; off += int64(29 * race.Stride(61)) {
				flip(t, fsys, dumpdir.VMCoreName, off, int(off%8))
				lost := map[mem.PFN]bool{}
				rep := verify(t, fsys, dir)
				if f := rep.Findings[0]; f.Where == "page" {
					lost[*f.PFN] = true
				}
				im := openImage(t, fsys)
				wantPages(t, im, m, chunks, lost)
				found, n := im.Damage()
				if int(n) != len(lost) || n == 1 && (*found[0].PFN != *rep.Findings[0].PFN || *found[0].Chunk != *rep.Findings[0].Chunk ||
					found[0].Offset != rep.Findings[0].Offset || found[0].Text != rep.Findings[0].Text) {
					t.Fatalf("bit %d of byte %d: the image names %+v, verify %+v", off%8, off, found, rep.Findings)
				}
				if err := im.Close(); err != nil {
					t.Fatal(err)
				}
				flip(t, fsys, dumpdir.VMCoreName, off, int(off%8))
			}
		})
	}
}

// TestImageOfAChunkThatIsNotWhatWasSent has pages that decode, but not to what the sender read: which of them is wrong nobody knows.
func TestImageOfAChunkThatIsNotWhatWasSent(t *testing.T) {
	m := dumpdirtest.NewMachine(72, 40, 8)
	m.Chunks[2].RawSum ^= 1
	fsys := dumpdirtest.NewFS()
	complete(t, fsys, dir, m)
	lost := map[mem.PFN]bool{}
	for _, e := range m.Chunks[2].Extents {
		for pfn := e.Start; pfn < e.End() && e.Kind == chunk.Data; pfn++ {
			lost[pfn] = true
		}
	}
	im := openImage(t, fsys)
	wantPages(t, im, m, len(m.Chunks), lost)
	if found, n := im.Damage(); int(n) != len(lost) || *found[0].Chunk != 2 {
		t.Errorf("damage %+v", found)
	}
}

// TestImageOfAVMCoreThatIsCut has lost the end of the file.
func TestImageOfAVMCoreThatIsCut(t *testing.T) {
	m := dumpdirtest.NewMachine(73, 60, 8)
	fsys := sealed(t, m, len(m.Chunks))
	vm, _ := fsys.Bytes(path.Join(dir, dumpdir.VMCoreName))
	for _, n := range []int{0, 5000, len(vm) * 3 / 4, len(vm) - 1} {
		fsys.SetBytes(path.Join(dir, dumpdir.VMCoreName), vm[:n])
		im := openImage(t, fsys)
		page := make([]byte, 4096)
		var lost uint64
		for _, e := range m.Runs {
			for pfn := e.Start; pfn < e.End(); pfn++ {
				switch err := im.ReadPage(page, pfn); {
				case errors.Is(err, vmcore.ErrCorrupt):
					lost++
				case err != nil || !bytes.Equal(page, m.Page(pfn)):
					t.Fatalf("cut to %d bytes: pfn %d: %v", n, pfn, err)
				}
			}
		}
		if _, places := im.Damage(); lost == 0 || places != lost {
			t.Errorf("cut to %d bytes: %d pages lost, %d named", n, lost, places)
		}
	}
}

// TestImageOfADumpThatLostItsSeal is read from the file, which still has the SHA-256 of the seal, or which has not: then what the
// journal knows is compared, and the rest is told of.
func TestImageOfADumpThatLostItsSeal(t *testing.T) {
	m := dumpdirtest.NewMachine(74, 60, 8)
	clean := sealed(t, m, len(m.Chunks))
	j, _ := clean.Bytes(path.Join(dir, dumpdir.JournalName))
	for name, n := range map[string]int{"last record": len(j) - 1, "half": len(j) / 2, "all": 0} {
		fsys := clean.Clone()
		fsys.SetBytes(path.Join(dir, dumpdir.JournalName), j[:n])
		im := openImage(t, fsys)
		wantPages(t, im, m, len(m.Chunks), nil)
		if found, places := im.Damage(); places != 0 || len(im.Unchecked()) > 0 {
			t.Errorf("%s: %+v", name, found)
		}
		r := regionsOf(t, clean, 60)
		flip(t, fsys, dumpdir.VMCoreName, r.firstPage+9, 1)
		im = openImage(t, fsys)
		first := firstData(m)
		err := im.ReadPage(make([]byte, 4096), first)
		if name != "all" && !errors.Is(err, vmcore.ErrCorrupt) {
			t.Errorf("%s: the damaged page that the journal knows: %v", name, err)
		}
		if found, places := im.Damage(); places == 0 || len(im.Unchecked()) == 0 {
			t.Errorf("%s, one bit flipped: %+v", name, found)
		}
	}
}

// firstData is the page whose data comes first in vmcore.
func firstData(m *dumpdirtest.Machine) mem.PFN {
	for _, e := range m.Chunks[0].Extents {
		if e.Kind == chunk.Data {
			return e.Start
		}
	}
	return 0
}

// TestImageConcurrently reads from many goroutines more chunks than are kept.
func TestImageConcurrently(t *testing.T) {
	m := dumpdirtest.NewMachine(75, 600, 4)
	im := openImage(t, sealed(t, m, len(m.Chunks)))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			page := make([]byte, 4096)
			for i := range m.Chunks {
				c := &m.Chunks[(i*7+g*31)%len(m.Chunks)]
				for _, e := range c.Extents {
					for pfn := e.Start; pfn < e.End(); pfn++ {
						if err := im.ReadPage(page, pfn); err != nil || !bytes.Equal(page, m.Page(pfn)) {
							t.Errorf("pfn %d: %v", pfn, err)
							return
						}
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestReadable leaves damaged pages out wherever they are: first, last, many in a row, all.
func TestReadable(t *testing.T) {
	m := dumpdirtest.NewMachine(76, 120, 8)
	clean := sealed(t, m, len(m.Chunks))
	for name, hit := range map[string]func(i int) bool{
		"none": func(int) bool { return false }, "first": func(i int) bool { return i == 0 }, "last": func(i int) bool { return i == len(m.Chunks)-1 },
		"every second": func(i int) bool { return i%2 == 0 }, "all": func(int) bool { return true },
	} {
		fsys := clean.Clone()
		lost := map[mem.PFN]bool{}
		off := regionsOf(t, clean, 120).firstPage
		for i := range m.Chunks {
			c := &m.Chunks[i]
			next := off
			k := 0
			for _, e := range c.Extents {
				for pfn := e.Start; pfn < e.End() && e.Kind == chunk.Data; pfn++ {
					if hit(i) {
						flip(t, fsys, dumpdir.VMCoreName, next, 0)
						lost[pfn] = true
					}
					next += int64(c.Pages[k].Size)
					k++
				}
			}
			off = next
		}
		r, err := vmcore.OnlyReadable(t.Context(), openImage(t, fsys))
		if err != nil {
			t.Fatal(err)
		}
		there := map[mem.PFN]bool{}
		for e, err := range r.HeldPages() {
			if err != nil {
				t.Fatal(err)
			}
			for pfn := e.Start; pfn < e.End(); pfn++ {
				there[pfn] = true
			}
		}
		for _, e := range m.Runs {
			for pfn := e.Start; pfn < e.End(); pfn++ {
				if there[pfn] == lost[pfn] {
					t.Errorf("%s: pfn %d is there: %v", name, pfn, there[pfn])
				}
			}
		}
		if int(r.LostPages()) != len(lost) || len(there)+len(lost) != 120 {
			t.Errorf("%s: %d lost, %d there", name, r.LostPages(), len(there))
		}
	}
}

// TestImageOfOtherMachines has larger pages and the other byte order.
func TestImageOfOtherMachines(t *testing.T) {
	for _, size := range []int{16384, 65536} {
		for _, big := range []bool{false, true} {
			const pages = 20
			fsys := dumpdirtest.NewFS()
			w, err := dumpdir.Create(fsys, dir, dumpdirtest.NewMachine(77, 5, 5).Meta, dumpdir.Options{})
			if err != nil {
				t.Fatal(err)
			}
			b, err := w.StartPlan(dumpdir.Facts{
				PageSize: size, MaxPFN: pages, NrCPUs: 1, BigEndian: big, RAM: []mem.Range{{End: mem.PhysAddr(pages * size)}},
			})
			if err != nil {
				t.Fatal(err)
			}
			all := mem.Extent{Count: pages}
			c := &dumpdir.Chunk{Extents: []chunk.Extent{{Extent: all}}}
			for pfn := range byte(pages) {
				c.Data = append(c.Data, bytes.Repeat([]byte{pfn + 1}, size)...)
				c.Pages = append(c.Pages, dumpdir.PageRecord{Size: uint32(size)})
			}
			if c.RawSum, err = dumpdir.NewPageDecoder(size).Sum(c.Pages, c.Data); err != nil {
				t.Fatal(err)
			}
			err = errors.Join(b.Add(all), b.Finish(dumpdir.PlanEnd{Chunks: 1, Pages: pages}), w.PutChunk(c))
			_, sealErr := w.Seal(t.Context(), "")
			if err := errors.Join(err, sealErr, w.Close()); err != nil {
				t.Fatal(err)
			}
			vm, _ := fsys.Bytes(path.Join(dir, dumpdir.VMCoreName))
			flip(t, fsys, dumpdir.VMCoreName, int64(len(vm)-1), 7)
			flip(t, fsys, dumpdir.VMCoreName, int64(3*size+5), 7) // in the front
			im := openImage(t, fsys)
			p := make([]byte, size+16)
			if err := im.ReadPhys(p, mem.PhysAddr(size-8)); err != nil || p[7] != 1 || p[8] != 2 || p[size+8] != 3 {
				t.Errorf("%d bytes, big endian %v: across pages: %v", size, big, err)
			}
			for pfn := range mem.PFN(pages) {
				err := im.ReadPage(p[:size], pfn)
				if damaged := pfn == pages-1; damaged != errors.Is(err, vmcore.ErrCorrupt) || !damaged && (err != nil || p[size-1] != byte(pfn)+1) {
					t.Errorf("%d bytes, big endian %v: pfn %d: %v", size, big, pfn, err)
				}
			}
			if _, places := im.Damage(); places != 1 {
				t.Errorf("%d places", places)
			}
		}
	}
}
