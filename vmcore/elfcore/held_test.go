package elfcore_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestFrameThatEndsInTheFile has the last bytes of a frame left out of the file: what is there belongs to the dump, the rest
// reads as zero. A frame of which only p_memsz has a part is not in the file.
func TestFrameThatEndsInTheFile(t *testing.T) {
	data := bytes.Repeat([]byte{0x33}, 2*page+page/2)
	for _, memsz := range []uint64{3 * page, 5 * page, 2*page + page/2, 4*page + 7} {
		f := open(t, (&vmcoretest.Core{Loads: []vmcoretest.Load{{Paddr: page, Data: data, Memsz: memsz}}}).Bytes())
		if got := extents(t, f); !slices.Equal(got, []mem.Extent{{Start: 1, Count: 3}}) {
			t.Errorf("p_memsz %#x: pages %v", memsz, got)
		}
		p := make([]byte, page)
		if err := f.ReadPage(p, 3); err != nil || !bytes.Equal(p, append(bytes.Clone(data[:page/2]), make([]byte, page/2)...)) {
			t.Errorf("p_memsz %#x: %v", memsz, err)
		}
		if a, err := vmcore.AccountOf(t.Context(), f); err != nil || !a.Complete() || a.Planned != 3 {
			t.Errorf("p_memsz %#x: %+v, %v", memsz, a, err)
		}
	}
}

// TestBytesWinOverAHole has PT_LOADs of which one has in the file what another one leaves out.
func TestBytesWinOverAHole(t *testing.T) {
	ram := vmcoretest.Pages(3, 8, page)
	hole := func(from, to int) vmcoretest.Load {
		return vmcoretest.Load{Paddr: uint64(from * page), Memsz: uint64((to - from) * page), Offset: page}
	}
	bytesOf := func(from, to, filled int) vmcoretest.Load {
		return vmcoretest.Load{Paddr: uint64(from * page), Data: ram[from*page : filled*page], Memsz: uint64((to - from) * page)}
	}
	for name, loads := range map[string][]vmcoretest.Load{
		"a hole around":        {hole(0, 8), bytesOf(2, 4, 4)},
		"a hole around, later": {bytesOf(2, 4, 4), hole(0, 8)},
		"a part of it filled":  {bytesOf(0, 8, 2), bytesOf(2, 4, 4)},
		"overlap in part":      {bytesOf(0, 4, 2), bytesOf(2, 8, 4)},
		"the same twice":       {hole(2, 4), bytesOf(2, 4, 4)},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, (&vmcoretest.Core{Loads: loads}).Bytes())
			got := make([]byte, 2*page)
			if err := f.ReadPages(got, 2); err != nil || !bytes.Equal(got, ram[2*page:4*page]) {
				t.Errorf("what one PT_LOAD has: %v", err)
			}
			if odd := f.Contradictions(); len(odd) > 0 {
				t.Errorf("contradictions %q", odd)
			}
		})
	}
	// Both have bytes, and not the same.
	other := bytes.Repeat([]byte{7}, 4*page)
	b := (&vmcoretest.Core{Loads: []vmcoretest.Load{bytesOf(0, 4, 4), {Paddr: 2 * page, Data: other}}}).Bytes()
	if _, err := elfcore.New(bytes.NewReader(b), int64(len(b))); err == nil {
		t.Error("different bytes for the same memory: no error")
	}
	if odd := openTolerant(t, b).Contradictions(); len(odd) != 1 {
		t.Errorf("contradictions %q", odd)
	}
}

// TestMoreInTheFileThanInMemory has a PT_LOAD whose p_filesz is larger than its p_memsz: what lies beyond belongs to no page.
func TestMoreInTheFileThanInMemory(t *testing.T) {
	ram := vmcoretest.Pages(5, 4, page)
	longer := vmcoretest.Load{Paddr: page, Data: append(bytes.Clone(ram[:2*page]), 0xee, 0xee), Memsz: 2 * page}
	next := vmcoretest.Load{Paddr: 3 * page, Data: ram[2*page:]}
	cut := vmcoretest.Load{Paddr: page, Data: ram[:2*page], Memsz: page + 1} // a byte of page 2
	none := vmcoretest.Load{Paddr: page, Data: ram[:2*page], Memsz: 1}       // a byte of page 1
	for name, row := range map[string]struct {
		loads []vmcoretest.Load
		want  []mem.Extent
	}{
		"before a hole":          {[]vmcoretest.Load{longer}, []mem.Extent{{Start: 1, Count: 2}}},
		"before another PT_LOAD": {[]vmcoretest.Load{longer, next}, []mem.Extent{{Start: 1, Count: 2}, {Start: 3, Count: 2}}},
		"a part of a page":       {[]vmcoretest.Load{cut, next}, []mem.Extent{{Start: 1, Count: 1}, {Start: 3, Count: 2}}},
		"no page":                {[]vmcoretest.Load{none, next}, []mem.Extent{{Start: 3, Count: 2}}},
		"after another PT_LOAD":  {[]vmcoretest.Load{next, longer}, []mem.Extent{{Start: 1, Count: 2}, {Start: 3, Count: 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := (&vmcoretest.Core{Loads: row.loads}).Bytes()
			if _, err := elfcore.New(bytes.NewReader(b), int64(len(b))); !errors.Is(err, vmcore.ErrCorrupt) {
				t.Errorf("strict: %v", err)
			}
			f := openTolerant(t, b)
			if odd := f.Contradictions(); len(odd) != 1 {
				t.Errorf("contradictions %q", odd)
			}
			if got := extents(t, f); !slices.Equal(got, row.want) {
				t.Errorf("pages %v, want %v", got, row.want)
			}
			for _, e := range row.want {
				got, want := make([]byte, e.Count*page), ram[(e.Start-1)*page:]
				if err := f.ReadPages(got, e.Start); err != nil || !bytes.Equal(got, want[:len(got)]) {
					t.Errorf("contents of %v: %v", e, err)
				}
			}
		})
	}
}
