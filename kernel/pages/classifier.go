package pages

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// Classifier classifies the page frames of one dump. Make one with New.
type Classifier struct {
	k        *kernel.Kernel
	ram      []mem.Extent
	headless []mem.PFN
	layout   layout
	sections *sections // nil without a memory map: all frames are Kernel
	memmap   []mem.Extent

	mu       sync.Mutex
	warnings []string
	lost     bool // a warning about unreadable struct pages was given
}

// New prepares the classification of the frames in ram, the RAM of the system kernel in any order. If facts about the
// kernel are missing, the Classifier excludes less and has warnings. The error is for a nil Kernel.
func New(k *kernel.Kernel, ram []mem.Range) (*Classifier, error) {
	if k == nil {
		return nil, errors.New("pages: no kernel given")
	}
	c := &Classifier{k: k}
	c.ram, c.headless = ramFrames(ram, k.PageShift())
	if len(c.ram) == 0 {
		return c, nil
	}
	if !k.Supported() {
		c.warnf("the kernel's page tables are not known: no page can be excluded")
		return c, nil
	}
	if !k.Verified() {
		c.warnf("the kernel's page tables cannot be trusted: no page can be excluded")
		return c, nil
	}
	var ok bool
	if c.layout, ok = readLayout(k.Info(), c.warnf); !ok {
		return c, nil
	}
	last := c.ram[len(c.ram)-1].End() - 1
	if c.sections, ok = newSections(k, c.layout.size, last, c.warnf); !ok {
		c.sections = nil
		return c, nil
	}
	c.findMemmap()
	return c, nil
}

func (c *Classifier) warnf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// Warnings returns what New and the walks so far could not determine: one sentence each, with the VMCOREINFO key or
// the address, and the consequence.
func (c *Classifier) Warnings() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.warnings)
}

// findMemmap finds the frames that hold struct pages of RAM, and warns of RAM without struct pages.
func (c *Classifier) findMemmap() {
	var m memmapExtents
	var bare mem.Extent // of RAM without struct pages: the first frame, and how many in all
	done, known := uint64(math.MaxUint64), false
	c.eachSection(func(e mem.Extent) bool {
		if nr := c.sections.number(e.Start); nr != done {
			done = nr
			var va mem.VirtAddr
			if va, known = c.findSection(nr, e.Start); known && va != 0 {
				m.add(c.k, va, c.sections.structPage<<c.sections.shift)
			}
		}
		if !known {
			if bare.Count == 0 {
				bare.Start = e.Start
			}
			bare.Count += e.Count
		}
		return true
	})
	m.normalise()
	c.memmap = m.list
	if m.full {
		c.warnf("the memory map lies in more than %d pieces: some of it is sorted as other kernel memory", maxMemmapExtents)
	}
	if bare.Count > 0 {
		c.warnf("%d page frames of RAM, the first of them pfn %d, have no struct page: they are kept", bare.Count, uint64(bare.Start))
	}
}

// findSection returns the address of the struct pages of section nr, or 0 if it cannot be read, with a warning for
// pfn. It reports false for a section without struct pages.
func (c *Classifier) findSection(nr uint64, pfn mem.PFN) (mem.VirtAddr, bool) {
	va, ok, err := c.sections.memmap(nr)
	if err != nil {
		c.loseStructPages(pfn, err)
		return 0, true
	}
	return va, ok
}

// eachSection calls f for the RAM of each section, ascending, until f returns false. The Classifier must have
// sections.
func (c *Classifier) eachSection(f func(mem.Extent) bool) {
	for _, e := range c.ram {
		for e.Count > 0 {
			var part mem.Extent
			if part, e = e.SplitAt(c.sections.start(c.sections.number(e.Start) + 1)); !f(part) {
				return
			}
		}
	}
}

// structPage returns the address of the struct page of frame pfn.
func (c *Classifier) structPage(pfn mem.PFN) (mem.VirtAddr, bool) {
	nr := c.sections.number(pfn)
	va, ok, err := c.sections.memmap(nr)
	if err != nil {
		c.loseStructPages(pfn, err)
	}
	return va + mem.VirtAddr(uint64(pfn-c.sections.start(nr))*c.sections.structPage), ok && err == nil
}

// loseStructPages warns, once, that struct pages cannot be read.
func (c *Classifier) loseStructPages(pfn mem.PFN, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost {
		return
	}
	c.lost = true
	c.warnings = append(c.warnings, fmt.Sprintf("struct pages cannot be read from pfn %d on (%v): such pages are kept", uint64(pfn), err))
}
