package sender

import (
	"sync/atomic"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// observed is a dump file whose reads are counted, so that a read that does not come
// back can be told from a line on which nothing moves.
type observed struct {
	vmcore.Image
	reads atomic.Uint64 // that have come back, failed ones too
}

// ReadPhys implements vmcore.Reader.
func (o *observed) ReadPhys(p []byte, a mem.PhysAddr) error {
	defer o.reads.Add(1)
	return o.Image.ReadPhys(p, a)
}

// ReadPage implements vmcore.Image.
func (o *observed) ReadPage(p []byte, pfn mem.PFN) error {
	defer o.reads.Add(1)
	return o.Image.ReadPage(p, pfn)
}

// ReadPages implements vmcore.PageRun, at once where the file can.
func (o *observed) ReadPages(p []byte, pfn mem.PFN) error {
	defer o.reads.Add(1)
	return readRun(o.Image, p, pfn)
}
