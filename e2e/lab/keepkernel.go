package lab

import (
	"context"
	"errors"
	"iter"
	"os"

	"github.com/corehaul/corehaul/export"
	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/kernel/printk"
	crashed "github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
)

// keepKernel writes the pages of an ELF vmcore that level 31 keeps as a kdump-compressed file, and the kernel's log as text.
func keepKernel(ctx context.Context, elf, dump, log string) error {
	img, err := elfcore.Open(elf)
	if err != nil {
		return err
	}
	defer func() { _ = img.Close() }()
	k, err := crashed.Kernel(img, img.Info())
	if err != nil {
		return err
	}
	kept, err := keptAt31(ctx, img, k)
	if err != nil {
		return err
	}
	return errors.Join(
		writeFile(dump, func(f *os.File) error { return exportKdump(ctx, f, kept) }),
		writeFile(log, func(f *os.File) error { return printk.Dump(k, f) }))
}

func exportKdump(ctx context.Context, f *os.File, img vmcore.Image) error {
	src, err := export.NewSource(ctx, img, "", export.Options{Format: export.FormatKdump})
	if err != nil {
		return err
	}
	lost, err := export.Kdump(ctx, f, src, "zstd")
	if lost > 0 {
		err = errors.Join(err, errors.New("lab: /proc/vmcore lacks pages"))
	}
	return err
}

func writeFile(path string, write func(*os.File) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// keptImage is an image without the pages that a dump level excludes.
type keptImage struct {
	vmcore.Image
	info vmcore.Info
	runs []mem.Extent
}

// Info implements vmcore.Image.
func (i *keptImage) Info() *vmcore.Info { return &i.info }

// Pages implements vmcore.Image.
func (i *keptImage) Pages() iter.Seq2[mem.Extent, error] {
	return func(yield func(mem.Extent, error) bool) {
		for _, e := range i.runs {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func keptAt31(ctx context.Context, img vmcore.Image, k *kernel.Kernel) (*keptImage, error) {
	classifier, err := pages.New(k, img.RAM())
	if err != nil {
		return nil, err
	}
	kept := &keptImage{Image: img, info: *img.Info()}
	kept.info.DumpLevel = int(pages.MaxLevel)
	return kept, classifier.Walk(ctx, pages.MaxLevel, func(r pages.Run) error {
		if !r.Excluded {
			kept.runs = append(kept.runs, r.Extent)
		}
		return nil
	})
}
