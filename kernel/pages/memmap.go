package pages

import (
	"cmp"
	"slices"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// maxMemmapExtents bounds the list of extents that hold struct pages: 1 MiB. Mappings of the memory map have 2 MiB
// and more and mostly follow each other, so real machines have a few extents for each NUMA node.
const maxMemmapExtents = 1 << 16

// memmapExtents collects the page frames that hold struct pages.
type memmapExtents struct {
	list []mem.Extent
	full bool // some extents did not fit
}

// add adds the struct pages at [va, va+size). It ignores addresses that are not mapped.
func (m *memmapExtents) add(k *kernel.Kernel, va mem.VirtAddr, size uint64) {
	pageSize := uint64(1) << k.PageShift()
	for size > 0 && !m.full {
		mapping, err := k.Lookup(va)
		n := mapping.Size
		if err != nil {
			n = pageSize - uint64(va)%pageSize
		}
		n = min(n, size)
		if err == nil {
			r := mem.Range{Start: mapping.Phys, End: mapping.Phys + mem.PhysAddr(n)}
			m.append(r.Pages(k.PageShift()))
		}
		va += mem.VirtAddr(n)
		size -= n
	}
}

func (m *memmapExtents) append(e mem.Extent) {
	if e.Count == 0 {
		return
	}
	if n := len(m.list); n > 0 && m.list[n-1].End() == e.Start {
		m.list[n-1].Count += e.Count
		return
	}
	if len(m.list) == maxMemmapExtents {
		m.normalise()
		if len(m.list) > maxMemmapExtents*3/4 {
			m.full = true
			return
		}
	}
	m.list = append(m.list, e)
}

// normalise sorts the extents and merges those that touch.
func (m *memmapExtents) normalise() {
	slices.SortFunc(m.list, func(a, b mem.Extent) int { return cmp.Compare(a.Start, b.Start) })
	joined := m.list[:0]
	for _, e := range m.list {
		joined = mem.AppendExtent(joined, e)
	}
	m.list = joined
}
