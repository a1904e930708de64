package sender

import (
	"sync/atomic"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// countingImage is a dump file whose reads are counted, so that a read that does not come
// back can be told from a connection on which nothing moves.
type countingImage struct {
	vmcore.Image
	reads atomic.Uint64 // that have come back, failed ones too
}

// ReadPhys implements vmcore.Reader.
func (c *countingImage) ReadPhys(p []byte, a mem.PhysAddr) error {
	defer c.reads.Add(1)
	return c.Image.ReadPhys(p, a)
}

// ReadPage implements vmcore.Image.
func (c *countingImage) ReadPage(p []byte, pfn mem.PFN) error {
	defer c.reads.Add(1)
	return c.Image.ReadPage(p, pfn)
}

// ReadPages implements vmcore.PageRun, at once where the file can.
func (c *countingImage) ReadPages(p []byte, pfn mem.PFN) error {
	defer c.reads.Add(1)
	return readRun(c.Image, p, pfn)
}
