package dumpdir

import (
	"iter"
	"math/bits"

	"github.com/corehaul/corehaul/mem"
)

// presentWindow is how many page frames are looked at in one pass over the journal: a bitmap
// of 32 MiB. Machines of up to 1 TiB need one pass.
const presentWindow = 1 << 28

// present returns the pages that the chunks of the journal hold, as ascending runs. An error,
// a page in two chunks among them, ends the walk and is left in *err. Memory is bounded, so the
// journal is read once for each window that has a page.
func (j *journal) present(err *error) iter.Seq[mem.Extent] {
	return func(yield func(mem.Extent) bool) {
		windows, werr := j.windows()
		if *err = werr; werr != nil {
			return
		}
		set := make([]uint64, (min(uint64(j.plan.MaxPFN), presentWindow)+63)/64)
		for w := range (uint64(j.plan.MaxPFN) + presentWindow - 1) / presentWindow {
			if !windows[w] {
				continue
			}
			clear(set)
			base := mem.PFN(w * presentWindow)
			if *err = j.fill(set, base); *err != nil {
				return
			}
			if !bitRuns(set, base, yield) {
				return
			}
		}
	}
}

// windows returns which windows have pages.
func (j *journal) windows() (map[uint64]bool, error) {
	found := make(map[uint64]bool)
	err := j.chunks(func(r *chunkRecord) error {
		for _, e := range r.extents {
			found[uint64(e.Start)/presentWindow] = true
			found[uint64(e.End()-1)/presentWindow] = true
		}
		return nil
	})
	return found, err
}

// fill sets the bits of the pages from base on.
func (j *journal) fill(set []uint64, base mem.PFN) error {
	limit := base + mem.PFN(len(set))*64
	return j.chunks(func(r *chunkRecord) error {
		for _, e := range r.extents {
			for pfn := max(e.Start, base); pfn < min(e.End(), limit); pfn++ {
				i := uint64(pfn - base)
				if set[i/64]>>(i%64)&1 != 0 {
					return journalDamage(-1, "pfn %d is in two chunks, one of them %d", pfn, r.seq)
				}
				set[i/64] |= 1 << (i % 64)
			}
		}
		return nil
	})
}

// bitRuns yields the runs of set bits.
func bitRuns(set []uint64, base mem.PFN, yield func(mem.Extent) bool) bool {
	var run mem.Extent
	for i, w := range set {
		at := base + mem.PFN(i)*64
		for done := 0; done < 64; {
			rest := w >> done
			if zeros := min(bits.TrailingZeros64(rest), 64-done); zeros > 0 {
				if run.Count > 0 && !yield(run) {
					return false
				}
				run, done = mem.Extent{}, done+zeros
				continue
			}
			ones := min(bits.TrailingZeros64(^rest), 64-done)
			if run.Count == 0 {
				run.Start = at + mem.PFN(done)
			}
			run.Count += uint64(ones) //nolint:gosec // not negative
			done += ones
		}
	}
	return run.Count == 0 || yield(run)
}
