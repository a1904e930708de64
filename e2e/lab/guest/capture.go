package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// copyBlock is the unit of reading /proc/vmcore and of writing the disk.
const copyBlock = 1 << 20

// zeroGrain is the unit in which zeros are skipped, because the disk is empty at first.
const zeroGrain = 64 << 10

// copyOut copies /proc/vmcore to its disk, byte for byte, and ends the machine.
func copyOut() error {
	src, err := os.Open("/proc/vmcore")
	if err != nil {
		return err
	}
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	say("%s%d", guestcfg.VmcoreSize, fi.Size())
	dev, err := diskBySerial(guestcfg.DiskVmcore)
	if err != nil {
		return err
	}
	// O_DIRECT uses no page cache in the capture kernel's small memory.
	dst, err := os.OpenFile(dev, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	if err := copySparse(dst, src, fi.Size()); err != nil {
		return err
	}
	if err := dst.Sync(); err != nil {
		return err
	}
	say(guestcfg.CopyDone)
	powerOff()
	return nil
}

// copySparse copies size bytes and skips grains of zeros.
func copySparse(dst io.WriterAt, src io.Reader, size int64) error {
	buf, err := alignedBuffer(copyBlock)
	if err != nil {
		return err
	}
	for off := int64(0); off < size; off += copyBlock {
		n, err := io.ReadFull(src, buf[:min(copyBlock, size-off)])
		if err != nil {
			return fmt.Errorf("read /proc/vmcore at %d: %w", off, err)
		}
		clear(buf[n:])
		if err := writeNonZero(dst, buf, off); err != nil {
			return fmt.Errorf("write disk at %d: %w", off, err)
		}
	}
	return nil
}

// writeNonZero writes the grains of buf that are not zero, with one write for each run.
func writeNonZero(dst io.WriterAt, buf []byte, off int64) error {
	start := -1
	for pos := 0; pos <= len(buf); pos += zeroGrain {
		content := pos < len(buf) && !isZero(buf[pos:pos+zeroGrain])
		switch {
		case content && start < 0:
			start = pos
		case !content && start >= 0:
			if _, err := dst.WriteAt(buf[start:pos], off+int64(start)); err != nil {
				return err
			}
			start = -1
		}
	}
	return nil
}
