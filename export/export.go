// Package export writes the memory of a dump again: as an ELF core, as a kdump-compressed file, or as a flattened
// one.
//
// An export never hides damage: pages that cannot be read, or whose checksums are wrong, are left out and counted.
// The package does not change the source. Sources may be hostile: vmcore checks them.
package export

import (
	"context"

	"github.com/corehaul/corehaul/vmcore"
)

// Formats of Options.Format.
const (
	FormatELF       = "elf"
	FormatKdump     = "kdump"
	FormatFlattened = "flattened"
)

// Options say how to write a source.
type Options struct {
	Format   string
	Compress string // compressor of the pages; empty: keep the source's
	Intact   bool   // a checksum has proved every byte of the file
	// Progress, if set, is told how many bytes of a step are done. Only one goroutine calls it at a time.
	Progress func(step string, done, total int64)
}

// Source is memory to be written.
type Source struct {
	vmcore.Image
	Path string          // the file to copy if a copy is enough; may be empty
	Has  *vmcore.Account // which of its pages the file holds
	Left uint64          // number of unreadable pages that Image leaves out

	meter *meter
}

// NewSource prepares img for an export. It reads all pages before if the format needs to know the unreadable ones
// (ELF lays its pages out first), or if the file at path would be copied. An empty path is never copied.
func NewSource(ctx context.Context, img vmcore.Image, path string, o Options) (Source, error) {
	src := Source{Image: img, Path: path, meter: newMeter(o.Progress)}
	var err error
	if src.Has, err = vmcore.AccountOf(ctx, img); err != nil {
		return src, err
	}
	if o.Intact || o.Format != FormatELF && !src.AsItIs(o.Compress) {
		return src, nil
	}
	src.meter.begin(StepCheck, src.pageBytes())
	rest, err := vmcore.OnlyReadable(ctx, src)
	if err != nil {
		return src, err
	}
	rest.Image = img // which counts no page twice
	switch {
	case o.Format == FormatELF:
		src.Image, src.Left = rest, rest.LostPages()
	case rest.LostPages() > 0:
		src.Path = "" // a copy would contain the damage
	}
	return src, nil
}

// AsItIs reports whether the file can be copied: it is a complete kdump-compressed file and no other compressor is
// wanted.
func (s Source) AsItIs(compress string) bool {
	return s.Path != "" && compress == "" && s.Info().Format == vmcore.FormatKdump && s.Has.Complete()
}

// Unwrap returns the image that reads the file.
func (s Source) Unwrap() vmcore.Image { return s.Image }
