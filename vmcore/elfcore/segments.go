package elfcore

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// maxPaddr is the end of physical memory on any machine: 52 bits of address.
const maxPaddr = 1 << 52

// maxAliases bounds the number of overlaps that are resolved: each costs a pass over all segments. Real cores have
// one or two (kernel text).
const maxAliases = 64

// run is physical memory whose bytes lie in the file, from start to end.
type run struct {
	start, end mem.PhysAddr
	off        int64 // file offset of start
}

// offset returns where byte a, or the end, of the run lies in the file.
func (r *run) offset(a mem.PhysAddr) int64 {
	return r.off + int64(uint64(a-r.start)) //nolint:gosec // bounded by usable
}

// seg is a PT_LOAD with physical memory.
type seg struct {
	vmcore.Segment
	dropped bool // other segments together have all of its memory
	alias   bool // a segment that is not dropped has all of its memory; set by overlap
}

func (s *seg) end() mem.PhysAddr { return s.Paddr + mem.PhysAddr(s.Memsz) }

// segmentMap maps physical memory to places in the file.
type segmentMap struct {
	pageSize uint64 // in bytes
	tolerant bool
	warn     func(string, ...any)
	segs     []seg
	odd      []string // ignored contradictions
}

// build returns the RAM ranges and the runs of the file, both sorted and disjoint.
func (m *segmentMap) build(loads []vmcore.Segment) ([]mem.Range, []run, error) {
	for i := range loads {
		ok, err := m.usable(&loads[i])
		if err != nil {
			return nil, nil, err
		}
		if ok {
			m.segs = append(m.segs, seg{Segment: loads[i]})
		}
	}
	if err := m.checkFileRanges(); err != nil {
		return nil, nil, err
	}
	m.sort()
	ram := m.ram()
	// From here on a segment is what it has in the file: bytes win over a hole that another one has there.
	m.segs = slices.DeleteFunc(m.segs, func(s seg) bool { return s.Filesz == 0 })
	for i := range m.segs {
		m.segs[i].Memsz = m.segs[i].Filesz
	}
	m.sort()
	if err := m.dropAliases(); err != nil {
		return nil, nil, err
	}
	return ram, m.runs(), nil
}

func (m *segmentMap) sort() {
	// slices.SortStableFunc would make much code for a type of this size, and the sender has to be small.
	sort.SliceStable(m.segs, func(i, j int) bool {
		a, b := &m.segs[i], &m.segs[j]
		return cmp.Or(cmp.Compare(a.Paddr, b.Paddr), cmp.Compare(b.Memsz, a.Memsz)) < 0
	})
}

// ram returns the memory of the sorted segments, each byte once.
func (m *segmentMap) ram() []mem.Range {
	var ram []mem.Range
	end := mem.PhysAddr(0)
	for i := range m.segs {
		s := &m.segs[i]
		if start := max(s.Paddr, end); start < s.end() {
			end = s.end()
			ram = append(ram, mem.Range{Start: start, End: end})
		}
	}
	return ram
}

// usable reports whether s is memory that a machine can have. A segment with more bytes in the file than in memory
// contradicts itself: only its whole frames are used, because the contents of a frame that is memory only in part are
// unknown. The other bytes count as not in the file.
func (m *segmentMap) usable(s *vmcore.Segment) (bool, error) {
	if s.Paddr == vmcore.NoPaddr || s.Memsz == 0 {
		return false, nil
	}
	if s.Paddr > maxPaddr || s.Memsz > maxPaddr-uint64(s.Paddr) {
		err := vmcore.Corruptf("PT_LOAD", s.Offset, "%#x bytes at paddr %v are beyond any machine's memory", s.Memsz, s.Paddr)
		return false, m.tolerate(err, "it is left out")
	}
	if s.Filesz > s.Memsz {
		err := vmcore.Corruptf("PT_LOAD", s.Offset, "%#x bytes in the file for %#x bytes at paddr %v", s.Filesz, s.Memsz, s.Paddr)
		end := (uint64(s.Paddr) + s.Memsz) &^ (m.pageSize - 1)
		s.Filesz = max(end, uint64(s.Paddr)) - uint64(s.Paddr)
		return true, m.tolerate(err, "only its whole pages are used")
	}
	return true, nil
}

// tolerate turns err into a warning in tolerant mode.
func (m *segmentMap) tolerate(err error, instead string) error {
	if !m.tolerant {
		return err
	}
	const limit = 16
	if line := fmt.Sprintf("%v; %s", err, instead); len(m.odd) < limit {
		m.odd = append(m.odd, line)
		m.warn("%s", line)
	}
	return nil
}

// checkFileRanges refuses two segments that give the same bytes of the file to different memory.
func (m *segmentMap) checkFileRanges() error {
	order := make([]*seg, 0, len(m.segs))
	for i := range m.segs {
		if m.segs[i].Filesz > 0 {
			order = append(order, &m.segs[i])
		}
	}
	slices.SortStableFunc(order, func(a, b *seg) int { return cmp.Compare(a.Offset, b.Offset) })
	var last *seg // the one that reaches farthest
	for _, s := range order {
		if last != nil && s.Offset < last.FileEnd() && s.skew() != last.skew() {
			err := vmcore.Corruptf("PT_LOAD", s.Offset, "bytes of paddr %v overlap in the file with those of the PT_LOAD at %#x to %#x (paddr %v)",
				s.Paddr, last.Offset, last.FileEnd(), last.Paddr)
			if err := m.tolerate(err, "both are used"); err != nil {
				return err
			}
		}
		if last == nil || s.FileEnd() > last.FileEnd() {
			last = s
		}
	}
	return nil
}

// skew is equal for segments that map overlapping file bytes to the same memory.
func (s *seg) skew() uint64 { return uint64(s.Offset) - uint64(s.Paddr) } //nolint:gosec // wraps alike for all

// dropAliases drops segments whose memory other segments have, too. Any other overlap is an error, or the later
// segment loses the common part.
func (m *segmentMap) dropAliases() error {
	for range maxAliases {
		a, b := m.overlap()
		if b == nil {
			return nil
		}
		switch {
		case m.covered(a):
			a.dropped = true
		case m.covered(b):
			b.dropped = true
		case a.skew() == b.skew(): // the same bytes of the file
			b.cutFront(a.end())
		default:
			err := vmcore.Corruptf("PT_LOAD", b.Offset, "paddr %v to %v overlaps with paddr %v to %v of the PT_LOAD at offset %#x",
				b.Paddr, b.end(), a.Paddr, a.end(), a.Offset)
			if err := m.tolerate(err, "the part they share is read from the first"); err != nil {
				return err
			}
			b.cutFront(a.end())
		}
	}
	return m.tolerate(vmcore.Corruptf("PT_LOAD", 0, "more than %d segments overlap", maxAliases), "overlapping parts are read from the first")
}

// overlap returns the first two segments that overlap, the later one second, without one containing the other. It
// marks contained segments.
func (m *segmentMap) overlap() (a, b *seg) {
	for i := range m.segs {
		s := &m.segs[i]
		s.alias = false
		switch {
		case s.dropped || s.Memsz == 0:
		case a == nil || s.Paddr >= a.end():
			a = s
		case s.end() <= a.end():
			s.alias = true
		default:
			return a, s
		}
	}
	return nil, nil
}

// covered reports whether other segments together have all memory of s.
func (m *segmentMap) covered(s *seg) bool {
	at := s.Paddr
	for i := range m.segs {
		o := &m.segs[i]
		switch {
		case o == s || o.dropped || o.end() <= at:
		case o.Paddr > at:
			return false
		default:
			at = o.end()
		}
		if at >= s.end() {
			return true
		}
	}
	return false
}

// cutFront makes s begin at paddr to, which lies within s.
func (s *seg) cutFront(to mem.PhysAddr) {
	n := uint64(to - s.Paddr)
	s.Paddr = to
	s.Memsz -= n
	n = min(n, s.Filesz)
	s.Filesz -= n
	s.Offset += int64(n) //nolint:gosec // within the file
}

// runs returns the remaining runs. It cuts overlaps that a tolerated core has left.
func (m *segmentMap) runs() []run {
	var runs []run
	end := mem.PhysAddr(0)
	for i := range m.segs {
		s := &m.segs[i]
		if s.dropped || s.alias || s.end() <= end {
			continue
		}
		if s.Paddr < end {
			s.cutFront(end)
		}
		end = s.end()
		runs = append(runs, run{start: s.Paddr, end: end, off: s.Offset})
	}
	return runs
}
