package elfcore

import (
	"fmt"
	"iter"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

const (
	// minGap is the shortest run of pages without contents that begins a new PT_LOAD. Shorter runs are written as
	// zeros. makedumpfile -E also uses 256.
	minGap = 256
	// maxSegments keeps the number of PT_LOADs below PN_XNUM, which some readers do not know.
	maxSegments = 60000
)

// outSeg is a PT_LOAD to be written: count pages of memory from start on, of which the first filled pages have
// contents.
type outSeg struct {
	start         mem.PFN
	count, filled uint64
}

// planSegments cuts the memory of img into PT_LOADs. Pages that its file does not hold have no contents. If there are
// too many PT_LOADs, longer gaps are filled with zeros, except gaps with pages that the file should hold.
func planSegments(img vmcore.Image) ([]outSeg, error) {
	for gap := uint64(minGap); ; gap *= 2 {
		p := newSegPlanner(img, gap)
		err := p.run(vmcore.HeldPages(img))
		p.stop()
		if err != nil || len(p.segs) <= maxSegments {
			return p.segs, err
		}
		if gap > uint64(img.Info().MaxPFN) {
			return nil, fmt.Errorf("%w: lost pages in more than %d places of an ELF core", vmcore.ErrUnsupported, maxSegments)
		}
	}
}

type segPlanner struct {
	gap     uint64
	shift   uint
	ram     []mem.Range // not yet begun
	segs    []outSeg
	cur     mem.Extent // frames of the RAM range that is being cut
	at      mem.PFN    // segs has the frames of cur below at
	planned mem.Extent // the last run of the image's pages so far
	next    func() (mem.Extent, error, bool)
	stop    func()
}

func newSegPlanner(img vmcore.Image, gap uint64) *segPlanner {
	p := &segPlanner{gap: gap, shift: img.Info().PageShift(), ram: img.RAM()}
	p.next, p.stop = iter.Pull2(img.Pages())
	return p
}

// lacks reports whether a page of gap, which has no contents, should be in the file: zeros would look like its
// contents. Gaps must ascend from call to call. An error ends the pages; the writer meets it again.
func (p *segPlanner) lacks(gap mem.Extent) bool {
	for p.planned.End() <= gap.Start {
		e, err, ok := p.next()
		if err != nil || !ok {
			return false
		}
		p.planned = e
	}
	return p.planned.Start < gap.End()
}

func (p *segPlanner) run(pages iter.Seq2[mem.Extent, error]) error {
	for e, err := range pages {
		if err != nil {
			return err
		}
		for e.Count > 0 && p.seek(e.Start) {
			here := e.Intersect(p.cur)
			if here.Count == 0 {
				break
			}
			p.put(here.Start, here.End())
			_, e = e.SplitAt(here.End())
			if len(p.segs) > maxSegments {
				return nil
			}
		}
	}
	for p.nextRange() {
	}
	return nil
}

// seek makes cur the first RAM range that ends after pfn.
func (p *segPlanner) seek(pfn mem.PFN) bool {
	for p.cur.Count == 0 || p.cur.End() <= pfn {
		if !p.nextRange() {
			return false
		}
	}
	return true
}

// nextRange closes the current RAM range and begins the next one. Frames of both ranges belong to the first.
func (p *segPlanner) nextRange() bool {
	p.extend(p.cur.End())
	for len(p.ram) > 0 {
		e := p.ram[0].Pages(p.shift)
		p.ram = p.ram[1:]
		if _, e = e.SplitAt(p.cur.End()); e.Count > 0 {
			p.cur, p.at = e, e.Start
			return true
		}
	}
	p.cur = mem.Extent{Start: p.cur.End()}
	return false
}

// put records that the pages of cur from start to end have contents.
func (p *segPlanner) put(start, end mem.PFN) {
	gap := uint64(start - p.at)
	if p.at == p.cur.Start || gap >= p.gap || gap > 0 && p.lacks(mem.Between(p.at, start)) {
		// Memory before the first page with contents gets its own segment without contents, so that it stays RAM.
		p.extend(start)
		p.segs = append(p.segs, outSeg{start: start})
	}
	s := &p.segs[len(p.segs)-1]
	s.count = uint64(end - s.start)
	s.filled = s.count
	p.at = end
}

// extend covers memory up to pfn. This memory has no contents.
func (p *segPlanner) extend(pfn mem.PFN) {
	switch {
	case p.cur.Count == 0 || p.at >= pfn:
		return
	case p.at == p.cur.Start:
		p.segs = append(p.segs, outSeg{start: p.at, count: uint64(pfn - p.at)})
	default:
		s := &p.segs[len(p.segs)-1]
		s.count = uint64(pfn - s.start)
	}
	p.at = pfn
}
