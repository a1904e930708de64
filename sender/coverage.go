package sender

import (
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// A coverage checks the page filter: its runs must ascend, lie in RAM, and together be all of RAM. Otherwise a dump could
// count as complete without pages that the filter missed.
type coverage struct {
	ram   []mem.Extent // page frames with at least a byte of RAM, from the last run on
	next  mem.PFN      // end of the last run
	whole uint64       // page frames that are RAM as a whole
	seen  uint64       // page frames of the runs so far
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

// add checks the next run.
func (c *coverage) add(e mem.Extent) error {
	for len(c.ram) > 0 && c.ram[0].End() <= e.Start {
		c.ram = c.ram[1:]
	}
	if e.Start < c.next || len(c.ram) == 0 || e.Start < c.ram[0].Start || e.End() > c.ram[0].End() {
		return fmt.Errorf("it reported %v, which is not RAM or was reported before", e)
	}
	c.next, c.seen = e.End(), c.seen+e.Count
	return nil
}

// end checks after the last run that none is missing.
func (c *coverage) end() error {
	if c.seen < c.whole {
		return fmt.Errorf("it reported %d page frames; the machine has %d", c.seen, c.whole)
	}
	return nil
}
