package sender

import (
	"sync/atomic"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// countingImage counts the reads of a dump file, so that a hung read can be told from a stalled connection.
type countingImage struct {
	vmcore.Image
	reads atomic.Uint64 // that returned, with or without an error
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

// ReadPages implements vmcore.PageRun.
func (c *countingImage) ReadPages(p []byte, pfn mem.PFN) error {
	defer c.reads.Add(1)
	return readRun(c.Image, p, pfn)
}
