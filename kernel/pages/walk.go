package pages

import (
	"context"
	"fmt"
	"slices"

	"github.com/corehaul/corehaul/mem"
)

// Numbers of struct pages in one read. After a large free block the next read is small, because the next struct page
// probably covers such a block, too, and most of a large read would be unused. Further reads grow.
const (
	firstBatch   = 8
	batchGrowth  = 8
	largestBatch = 1024
	largeBlock   = 512 // frames
)

// Walk calls yield for ascending runs of frames that cover every frame of RAM once, including frames of which only a
// part is RAM. Each run is as long as class and exclusion are the same. The runs depend on the dump and the level
// alone. Memory does not grow with the machine. Walk returns yield's first error, the context's, or an error for a
// level above 31.
func (c *Classifier) Walk(ctx context.Context, level DumpLevel, yield func(Run) error) error {
	if level > MaxLevel {
		return fmt.Errorf("dump level %d is not in 0..%d", level, MaxLevel)
	}
	w := &walker{c: c, level: level, yield: yield, memmap: mem.NewSplitter(c.memmap), batch: firstBatch}
	if c.sections == nil {
		for _, e := range c.ram {
			w.emit(e, Kernel, false)
		}
		w.flush()
		return w.err
	}
	w.buf = make([]byte, largestBatch*c.layout.size)
	c.eachSection(func(e mem.Extent) bool {
		if w.err == nil {
			w.err = ctx.Err()
		}
		w.section(e)
		return w.err == nil
	})
	w.flush()
	return w.err
}

// span ends at frame until: an earlier struct page decided the frames before it.
type span struct {
	until mem.PFN
	class Class
}

// walker is one walk over the frames.
type walker struct {
	c     *Classifier
	level DumpLevel
	yield func(Run) error
	err   error // the first error; nothing is yielded after it

	run    Run // the next run to yield; it may still grow
	memmap *mem.Splitter

	excluded span // frames before its end are excluded, whatever their struct pages say
	covered  span // kept frames before its end have its class

	buf   []byte // struct pages of frames [first, end)
	first mem.PFN
	end   mem.PFN
	batch uint64 // struct pages to read next
	facts facts
}

// section classifies the frames of e, which lie in one section.
func (w *walker) section(e mem.Extent) {
	va, ok := w.c.structPage(e.Start)
	if !ok {
		w.keep(e)
		return
	}
	w.first, w.end = 0, 0
	var skip mem.PFN // frames before it were excluded by one of this section
	for pfn := e.Start; pfn < e.End() && w.err == nil; {
		if pfn < skip {
			skipped := mem.Between(pfn, min(skip, e.End()))
			w.emit(skipped, w.excluded.class, true)
			pfn = skipped.End()
			continue
		}
		_, rest := e.SplitAt(pfn)
		at := va + mem.VirtAddr(uint64(pfn-e.Start)*w.c.sections.structPage)
		if lost := w.fetch(rest, at); lost > 0 {
			w.keep(mem.Extent{Start: pfn, Count: lost})
			pfn += mem.PFN(lost)
			continue
		}
		if count := w.frame(pfn); count > 1 {
			skip = pfn + mem.PFN(count)
			if count >= largeBlock {
				w.batch = firstBatch
			}
			continue
		}
		pfn++
	}
}

// frame classifies frame pfn, whose struct page is in the buffer. If it excludes several frames together, it emits
// nothing and returns their number.
func (w *walker) frame(pfn mem.PFN) uint64 {
	if len(w.c.headless) > 0 && slices.Contains(w.c.headless, pfn) {
		// makedumpfile looks up struct pages by the first byte of a frame.
		w.keep(mem.Extent{Start: pfn, Count: 1})
		return 1
	}
	l := &w.c.layout
	p := w.buf[uint64(pfn-w.first)*l.size:]
	var next []byte
	if pfn+1 < w.end {
		next = p[l.size:]
	}
	l.read(&w.facts, p, next, pfn)
	class, count, excluded := l.decide(&w.facts, w.level)
	if excluded && count > 1 {
		if until := pfn + mem.PFN(count); until > w.excluded.until {
			w.excluded = span{until: until, class: class}
		}
		return count
	}
	one := mem.Extent{Start: pfn, Count: 1}
	switch {
	case excluded:
		w.emit(one, class, true)
	case count > 1:
		w.covered = span{until: pfn + mem.PFN(count), class: class}
		w.keep(one)
	case class != Kernel && pfn >= w.excluded.until:
		w.emit(one, class, false)
	default:
		w.keep(one)
	}
	return 1
}

// keep emits frames that their own struct pages do not exclude. An earlier frame may have excluded them, or decided
// their class.
func (w *walker) keep(e mem.Extent) {
	for e.Count > 0 {
		class, excluded, until := Kernel, false, e.End()
		switch {
		case e.Start < w.excluded.until:
			until, class, excluded = w.excluded.until, w.excluded.class, true
		case e.Start < w.covered.until:
			until, class = w.covered.until, w.covered.class
		}
		var part mem.Extent
		part, e = e.SplitAt(until)
		w.emit(part, class, excluded)
	}
}

// fetch reads the struct page of rest's first frame, at va, into the buffer, and the next one if rest has more
// frames. It returns the number of frames whose struct pages cannot be read.
func (w *walker) fetch(rest mem.Extent, va mem.VirtAddr) uint64 {
	pfn := rest.Start
	if pfn >= w.first && pfn < w.end && (pfn+1 < w.end || pfn+1 == rest.End()) {
		return 0
	}
	if pfn >= w.first && pfn < w.end && !w.isHead(pfn) {
		return 0
	}
	size := w.c.layout.size
	count := min(rest.Count, w.batch)
	w.batch = min(w.batch*batchGrowth, largestBatch)
	err := w.c.k.ReadVirt(w.buf[:count*size], va)
	if err != nil {
		// One page of the memory map may be missing: take what lies before its end.
		page := uint64(1) << w.c.k.PageShift()
		count = min(count, (page-uint64(va)%page+size-1)/size)
		err = w.c.k.ReadVirt(w.buf[:count*size], va)
	}
	if err != nil {
		w.c.loseStructPages(pfn, err)
		w.first, w.end = 0, 0
		return count
	}
	w.first, w.end = pfn, pfn+mem.PFN(count)
	return 0
}

// isHead reports whether frame pfn, which is in the buffer, begins a compound page. Then its second struct page is
// needed, too.
func (w *walker) isHead(pfn mem.PFN) bool {
	l := &w.c.layout
	l.read(&w.facts, w.buf[uint64(pfn-w.first)*l.size:], nil, pfn)
	return w.facts.flags&l.head != 0
}

// emit adds e to the runs.
func (w *walker) emit(e mem.Extent, class Class, excluded bool) {
	if w.run.Count > 0 && w.run.End() == e.Start && w.run.Class == class && w.run.Excluded == excluded {
		w.run.Count += e.Count
		return
	}
	w.flush()
	w.run = Run{Extent: e, Class: class, Excluded: excluded}
}

// flush yields the current run.
func (w *walker) flush() {
	run := w.run
	w.run = Run{}
	switch {
	case w.err != nil || run.Count == 0:
	case run.Class == Kernel && !run.Excluded:
		for part, isMemmap := range w.memmap.Split(run.Extent) {
			class := Kernel
			if isMemmap {
				class = Memmap
			}
			if w.err = w.yield(Run{Extent: part, Class: class}); w.err != nil {
				return
			}
		}
	default:
		w.err = w.yield(run)
	}
}
