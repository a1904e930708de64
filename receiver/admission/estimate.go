package admission

import "github.com/corehaul/corehaul/dumpdir"

// minRatio is how well the pages of a kernel are compressed at the very best. A plan
// has to wait that does not fit even then; one that turns out not to fit is cut
// off when the reserve is reached, and goes on when there is room, or is sealed as it is.
const minRatio = 8

// descBytes is what each planned page costs in the front of vmcore.
const descBytes = 24

// sampleBytes is how much of a dump, raw, has to be here before the rest is judged by it.
const sampleBytes = 16 << 20

// Demand is what a plan asks of the disk.
type Demand struct {
	Planned  uint64 // pages that have a descriptor
	Bitmaps  uint64 // bytes of both bitmaps that are not a hole
	Solid    uint64 // pages to come that take room: all but those that may be zero
	PageSize uint64 // bytes
}

// Least returns the bytes that the rest of a dump takes at the very least: its front, unless that is there, and half of what
// its pages take at the rate so far, once that is known. Nobody has to wait, or is turned away, for room that he may not need.
func (d Demand) Least(p dumpdir.Progress) uint64 { return d.Front(p) + d.pages(p, 0.5) }

// Front returns the bytes of the front of vmcore, 0 if it is there.
func (d Demand) Front(p dumpdir.Progress) uint64 {
	if p.Planned > 0 {
		return 0
	}
	return d.Planned*descBytes + d.Bitmaps
}

// Likely returns the bytes that the pages of the rest of a dump are going to take. The pages that have come
// are the best sample of those that have not.
func (d Demand) Likely(p dumpdir.Progress) uint64 { return d.pages(p, 1) }

// pages returns the bytes of the pages to come, at a part of the stored bytes for each raw byte so far.
func (d Demand) pages(p dumpdir.Progress, part float64) uint64 {
	missing := (d.Solid - min(d.Solid, p.Present)) * d.PageSize
	raw := p.Present * d.PageSize
	if raw < sampleBytes {
		return missing / minRatio
	}
	ratio := float64(max(p.PageData, 0)) / float64(raw)
	return min(missing, uint64(float64(missing)*ratio*part))
}
