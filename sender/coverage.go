package sender

import (
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// A coverage holds the page filter to its word: its runs ascend, lie in RAM, and together are all of
// RAM. What a filter passes over in silence would be missing in a dump that counts as complete.
type coverage struct {
	ram   []mem.Extent // frames of which RAM has bytes, from the last run on
	next  mem.PFN      // the end of the last run
	whole uint64       // frames that RAM has whole
	told  uint64       // frames of the runs so far
}

func newCoverage(ranges []mem.Range, shift uint) *coverage {
	c := &coverage{}
	for _, r := range mergeRAM(ranges) {
		e := r.Pages(shift)
		if first, end := (r.Start + 1<<shift - 1).PFN(shift), r.End.PFN(shift); first < end {
			c.whole += uint64(end - first)
		}
		c.ram = mem.AppendExtent(c.ram, e)
	}
	return c
}

// add takes the next run.
func (c *coverage) add(e mem.Extent) error {
	for len(c.ram) > 0 && c.ram[0].End() <= e.Start {
		c.ram = c.ram[1:]
	}
	if e.Start < c.next || len(c.ram) == 0 || e.Start < c.ram[0].Start || e.End() > c.ram[0].End() {
		return fmt.Errorf("it reported %v, which is not RAM or was reported before", e)
	}
	c.next, c.told = e.End(), c.told+e.Count
	return nil
}

// end is called after the last run.
func (c *coverage) end() error {
	if c.told < c.whole {
		return fmt.Errorf("it reported %d page frames; the machine has %d", c.told, c.whole)
	}
	return nil
}
