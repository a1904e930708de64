package admission

import "github.com/corehaul/corehaul/dumpdir"

// minRatio is the best compression ratio to expect of the pages of a kernel. A plan that does not fit even at this ratio
// waits. A dump that turns out larger is cut off at the reserve. It goes on when there is room, or is sealed as it is.
const minRatio = 8

// descBytes is the size of a page descriptor in the front of vmcore.
const descBytes = 24

// sampleBytes is how many raw bytes of a dump must have come before their compression ratio is used for the rest.
const sampleBytes = 16 << 20

// Demand describes the disk space that a plan needs.
type Demand struct {
	Planned  uint64 // pages with a descriptor
	Bitmaps  uint64 // bytes of both bitmaps outside holes
	Solid    uint64 // collected pages, without those that may be zero
	PageSize uint64 // bytes
}

// Least returns a low estimate of the bytes that the rest of a dump needs: its front, unless that exists, and half of Likely
// once there is a sample. A low estimate makes no sender wait for room that its dump may not need.
func (d Demand) Least(p dumpdir.Progress) uint64 { return d.Front(p) + d.pages(p, 0.5) }

// Front returns the bytes of the front of vmcore, or 0 if it exists.
func (d Demand) Front(p dumpdir.Progress) uint64 {
	if p.Planned > 0 {
		return 0
	}
	return d.Planned*descBytes + d.Bitmaps
}

// Likely estimates the bytes of the missing pages. The stored pages are the best sample of them.
func (d Demand) Likely(p dumpdir.Progress) uint64 { return d.pages(p, 1) }

// pages estimates the bytes of the missing pages at part times the ratio of stored to raw bytes so far.
func (d Demand) pages(p dumpdir.Progress, part float64) uint64 {
	missing := (d.Solid - min(d.Solid, p.Present)) * d.PageSize
	raw := p.Present * d.PageSize
	if raw < sampleBytes {
		return missing / minRatio
	}
	ratio := float64(max(p.PageData, 0)) / float64(raw)
	return min(missing, uint64(float64(missing)*ratio*part))
}
