package kernel

import (
	"slices"

	"github.com/corehaul/corehaul/mem"
)

// Holes are the half-open ranges of bytes of a read that could not be read, in ascending order. Between two of them lies a byte that
// could.
type Holes []Hole

// Hole is a half-open range.
type Hole struct{ Start, End int }

// Has reports whether any of a half-open range is in a hole.
func (h Holes) Has(start, end int) bool {
	i, _ := slices.BinarySearchFunc(h, start, func(s Hole, start int) int {
		if s.End <= start {
			return -1
		}
		return 1
	})
	return i < len(h) && h[i].Start < end
}

// From returns what of the holes lies behind a place, counted from there.
func (h Holes) From(place int) (list Holes) {
	for _, s := range h {
		if s.End > place {
			list = append(list, Hole{max(s.Start-place, 0), s.End - place})
		}
	}
	return list
}

// Bytes returns how many bytes the holes have.
func (h Holes) Bytes() (n int) {
	for _, s := range h {
		n += s.End - s.Start
	}
	return n
}

// with returns the holes with one more behind them.
func (h Holes) with(start, end int) Holes {
	if last := len(h) - 1; last >= 0 && h[last].End == start {
		h[last].End = end
		return h
	}
	return append(h, Hole{start, end})
}

// ReadHoley reads what can be read at va, with zeros in the place of pages that cannot. err is not nil if none can.
func (k *Kernel) ReadHoley(p []byte, va mem.VirtAddr) (lost Holes, err error) {
	if err = k.ReadVirt(p, va); err == nil {
		return nil, nil
	}
	page := mem.VirtAddr(1) << k.PageShift()
	some := false
	for at := 0; at < len(p); {
		from := va + mem.VirtAddr(at)
		n := min(len(p)-at, int(page-from%page)) //nolint:gosec // at most a page
		if k.ReadVirt(p[at:at+n], from) == nil {
			some = true
		} else {
			clear(p[at : at+n])
			lost = lost.with(at, at+n)
		}
		at += n
	}
	if some {
		err = nil
	}
	return lost, err
}
