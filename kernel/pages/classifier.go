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

// Classifier sorts the page frames of one dump. Make one with New.
type Classifier struct {
	k        *kernel.Kernel
	ram      []mem.Extent
	headless []mem.PFN
	layout   layout
	sections *sections // nil when the memory map cannot be found: all is Kernel
	memmap   []mem.Extent
	limit    mem.PFN // frames from here on have no struct page and never had

	mu       sync.Mutex
	warnings []string
	lost     bool // a warning about unreadable struct pages was given
}

// New prepares the classification of the frames in ram, the ranges of physical
// memory that were RAM of the system kernel, in any order. Whatever is missing in
// the kernel gives a Classifier that excludes less and has warnings; an error is
// for a nil Kernel.
func New(k *kernel.Kernel, ram []mem.Range) (*Classifier, error) {
	if k == nil {
		return nil, errors.New("pages: no kernel given")
	}
	c := &Classifier{k: k, limit: math.MaxUint64}
	c.ram, c.headless = ramFrames(ram, k.PageShift())
	if len(c.ram) == 0 {
		return c, nil
	}
	if !k.Supported() {
		c.warnf("the kernel's page tables are not known: no page can be excluded")
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
	c.findLimit(last)
	c.findMemmap()
	return c, nil
}

func (c *Classifier) warnf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// Warnings returns what New, and the walks so far, could not determine: one
// sentence each, with the VMCOREINFO key or the address at fault and what follows.
func (c *Classifier) Warnings() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.warnings)
}

// findLimit finds the end of the last section that has struct pages. What RAM
// lies behind it the kernel was told not to use (mem= on its command line), and
// makedumpfile leaves it out. A section that cannot be read counts as having them.
func (c *Classifier) findLimit(last mem.PFN) {
	const maxSteps = 1 << 20 // 128 TiB of sections
	nr := c.sections.number(last)
	for range maxSteps {
		if _, ok, err := c.sections.memmap(nr); ok || err != nil {
			c.limit = c.sections.start(nr + 1)
			return
		}
		if nr == 0 {
			return
		}
		nr--
	}
}

// findMemmap finds the frames that hold the struct pages of sections with RAM.
func (c *Classifier) findMemmap() {
	var m memmapExtents
	done := uint64(math.MaxUint64)
	c.eachSection(func(e mem.Extent) bool {
		nr := c.sections.number(e.Start)
		if nr == done {
			return true
		}
		done = nr
		if va, ok := c.structPage(c.sections.start(nr)); ok {
			m.add(c.k, va, c.sections.structPage<<c.sections.shift)
		}
		return !m.full
	})
	m.normalise()
	c.memmap = m.list
	if m.full {
		c.warnf("the memory map lies in more than %d pieces: some of it is sorted as other kernel memory", maxMemmapExtents)
	}
}

// eachSection calls f for the part of each section that is RAM, ascending, until
// f returns false. Only for a Classifier with sections.
func (c *Classifier) eachSection(f func(mem.Extent) bool) {
	for _, e := range c.ram {
		for e.Count > 0 {
			end := min(e.End(), c.sections.start(c.sections.number(e.Start)+1))
			part := mem.Extent{Start: e.Start, Count: uint64(end - e.Start)}
			if !f(part) {
				return
			}
			e = mem.Extent{Start: end, Count: e.Count - part.Count}
		}
	}
}

// structPage returns where the struct page of frame pfn lies.
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
