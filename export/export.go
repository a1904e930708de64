// Package export writes the memory in a dump anew: as an ELF core, as a kdump-compressed file, or as the flattened form of one.
//
// What is written never has damage that the source's checksums would have told of: pages that cannot be read, or are not
// what they should be, are left out and counted. No file of the source is changed. Sources may be hostile; the package
// trusts vmcore to say so.
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

// Options say what a source is to be written as.
type Options struct {
	Format   string
	Compress string // compressor of the pages; empty: as they are
	Intact   bool   // the file is known to be what it should be, byte by byte
}

// Source is memory that is to be written.
type Source struct {
	vmcore.Image
	Path string          // the file to copy where that is as good; may be empty
	Has  *vmcore.Account // what the file holds of what it should
	Left uint64          // pages of it that Image leaves out because they cannot be read
}

// NewSource returns what is to be written of img: all of it, or what can be read of it for a format that lays its pages out
// before it has read them, and for the file at path that would be copied. An empty path is never copied.
func NewSource(ctx context.Context, img vmcore.Image, path string, o Options) (Source, error) {
	src := Source{Image: img, Path: path}
	var err error
	if src.Has, err = vmcore.AccountOf(ctx, img); err != nil {
		return src, err
	}
	if o.Intact || o.Format != FormatELF && !src.AsItIs(o.Compress) {
		return src, nil
	}
	rest, err := vmcore.OnlyReadable(ctx, img)
	if err != nil {
		return src, err
	}
	switch {
	case o.Format == FormatELF:
		src.Image, src.Left = rest, rest.LostPages()
	case rest.LostPages() > 0:
		src.Path = "" // its damage would be copied
	}
	return src, nil
}

// AsItIs reports whether the file can be copied: a whole kdump-compressed file of which no other compressor is asked for.
func (s Source) AsItIs(compress string) bool {
	return s.Path != "" && compress == "" && s.Info().Format == vmcore.FormatKdump && s.Has.Complete()
}

// Unwrap returns the image that reads the file.
func (s Source) Unwrap() vmcore.Image { return s.Image }
