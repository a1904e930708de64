// Package printk reads the kernel log out of the memory of a crashed kernel.
package printk

import (
	"io"
	"iter"

	"github.com/corehaul/corehaul/kernel"
)

// Record is one record of the kernel log.
type Record struct {
	Seq      uint64
	TSNsec   uint64
	CallerID uint32
	Level    uint8
	Facility uint8
	Flags    uint8
	Text     []byte
}

// Dump writes the log as text.
func Dump(*kernel.Kernel, io.Writer) error { return nil }

// Records returns the records of the log, oldest first.
func Records(*kernel.Kernel) iter.Seq2[Record, error] {
	return func(func(Record, error) bool) {}
}

// PanicLine returns the line that best tells what happened.
func PanicLine([]string) string { return "" }
