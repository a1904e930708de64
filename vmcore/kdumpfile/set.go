package kdumpfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// Set is a set of files that makedumpfile --split wrote. Each has the headers and bitmaps of the whole dump, and descriptors and data of
// the pages in its range of frames. A Set is one vmcore.Image, and safe for concurrent use. Pages of a file that is not in the Set
// are missing.
type Set struct {
	pieces []*Reader // by their first frame; the first one answers for all of them
	info   *vmcore.Info
	header Header
}

var (
	_ vmcore.Image  = (*Set)(nil)
	_ vmcore.Holder = (*Set)(nil)
)

// ErrOtherSet says that files are not pieces of one --split set.
var ErrOtherSet = errors.New("not pieces of one --split set")

// Joins reports whether k is a further piece of a set: it has the same headers as the others, and another range. It reads nothing. It is false
// for an empty set.
func (k *Reader) Joins(set []*Reader) bool {
	return len(set) > 0 && !slices.ContainsFunc(set, func(o *Reader) bool {
		return !k.sameSet(o) || k.h.start < o.h.end && o.h.start < k.h.end
	})
}

func (k *Reader) sameSet(o *Reader) bool {
	a, b := k.h, o.h
	return a.split && b.split && a.MaxPFN == b.MaxPFN && a.PageSize == b.PageSize && a.Time.Equal(b.Time) && a.Utsname == b.Utsname &&
		bytes.Equal(k.info.Notes, o.info.Notes) && slices.Equal(k.ram, o.ram)
}

// Join makes a Set of pieces, of which there must be at least one. Errors match ErrOtherSet, also where pieces overlap. The pieces must
// stay open.
func Join(pieces []*Reader) (*Set, error) {
	s := &Set{pieces: slices.SortedFunc(slices.Values(pieces), func(a, b *Reader) int {
		return cmp.Or(cmp.Compare(a.h.start, b.h.start), cmp.Compare(a.h.end, b.h.end))
	})}
	first := s.pieces[0]
	end := mem.PFN(0)
	info := *first.info
	info.Incomplete, info.Lacks, info.Warnings = false, nil, nil
	s.info, s.header = &info, first.h.Header
	for _, k := range s.pieces {
		if !k.sameSet(first) || k.h.start < end {
			return nil, fmt.Errorf("%w: the one with pfn %d to %d", ErrOtherSet, k.h.start, k.h.end)
		}
		s.gap(end, k.h.start)
		end = k.h.end
		s.header.Status |= k.h.Status
		s.addInfo(k)
	}
	s.gap(end, first.h.MaxPFN)
	return s, nil
}

// gap notes that there is no piece for the frames [from, to).
func (s *Set) gap(from, to mem.PFN) {
	if from < to {
		s.info.Lackf("the piece of the --split set with pfn %d to %d is missing", from, to)
	}
}

// addInfo adds what piece k lacks, apart from the other pieces.
func (s *Set) addInfo(k *Reader) {
	piece := k.h.pieceLack()
	for _, lack := range k.info.Lacks {
		if lack != piece && !slices.Contains(s.info.Lacks, lack) {
			s.info.Lackf("%s", lack)
		}
	}
	for _, w := range k.info.Warnings {
		if w != piece && !slices.Contains(s.info.Warnings, w) {
			s.info.Warnf("%s", w)
		}
	}
}

// piece returns the piece for frame pfn, nil if there is none.
func (s *Set) piece(pfn mem.PFN) *Reader {
	i := sort.Search(len(s.pieces), func(i int) bool { return s.pieces[i].h.start > pfn }) - 1
	if i < 0 || pfn >= s.pieces[i].h.end {
		return nil
	}
	return s.pieces[i]
}

// absent is the error for a frame without a piece.
func (s *Set) absent(pfn mem.PFN) error {
	k := s.pieces[0]
	err := k.absent(pfn)
	if pfn < k.h.MaxPFN {
		b, bad := k.bits.get(k, blockOf(pfn))
		switch {
		case bad != nil:
			return bad
		case b.has(uint64(pfn % bitBlockPFN)):
			err = vmcore.ErrIncomplete
		}
	}
	return k.addrError(pfn, err)
}

// Info implements vmcore.Image.
func (s *Set) Info() *vmcore.Info { return s.info }

// Header returns the headers for a Writer, with RAM. The caller must not change it.
func (s *Set) Header() *Header { return &s.header }

// RAM implements vmcore.Image.
func (s *Set) RAM() []mem.Range { return s.pieces[0].ram }

// Pages implements vmcore.Image: the runs of the 2nd bitmap, those of missing pieces included.
func (s *Set) Pages() iter.Seq2[mem.Extent, error] {
	best := slices.MaxFunc(s.pieces, func(a, b *Reader) int { return cmp.Compare(a.known, b.known) })
	return best.runs(best.h.l.Bitmap2, best.known, nil)
}

// HeldPages implements vmcore.Holder.
func (s *Set) HeldPages() iter.Seq2[mem.Extent, error] {
	return func(yield func(mem.Extent, error) bool) {
		for _, k := range s.pieces {
			for e, err := range k.HeldPages() {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// ReadStored is Reader.ReadStored.
func (s *Set) ReadStored(buf []byte, pfn mem.PFN) ([]byte, PageDesc, error) {
	if k := s.piece(pfn); k != nil {
		return k.ReadStored(buf, pfn)
	}
	return nil, PageDesc{}, s.absent(pfn)
}

// ReadPage implements vmcore.Image.
func (s *Set) ReadPage(p []byte, pfn mem.PFN) error {
	if k := s.piece(pfn); k != nil {
		return k.ReadPage(p, pfn)
	}
	return s.absent(pfn)
}

// ReadPhys implements vmcore.Reader.
func (s *Set) ReadPhys(p []byte, a mem.PhysAddr) error {
	first := s.pieces[0]
	for len(p) > 0 {
		in := uint64(a) & uint64(first.h.PageSize-1)                 //nolint:gosec // positive
		part := p[:min(uint64(len(p)), uint64(first.h.PageSize)-in)] //nolint:gosec // positive
		k, pfn := s.piece(a.PFN(first.shift)), a.PFN(first.shift)
		if k == nil {
			return s.absent(pfn)
		}
		if err := k.ReadPhys(part, a); err != nil {
			return err
		}
		p = p[len(part):]
		if a += mem.PhysAddr(len(part)); a == 0 && len(p) > 0 {
			return &vmcore.AddrError{Addr: a - 1, Err: vmcore.ErrNotPresent}
		}
	}
	return nil
}

// Close does nothing, as that of a Reader.
func (s *Set) Close() error { return nil }
