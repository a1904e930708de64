package export

import (
	"bufio"
	"context"
	"io"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
)

// ELF writes src to w as an ELF core. It leaves out pages that cannot be read, and returns their number.
func ELF(ctx context.Context, w io.Writer, src Source) (lost uint64, err error) {
	buffered := bufio.NewWriterSize(w, 1<<20)
	opt := elfOptions(src)
	opt.Incomplete = !src.Has.Complete() || src.Left > 0
	src.meter.begin(StepPages, src.pageBytes())
	stats, err := elfcore.Write(ctx, buffered, src, opt)
	if err == nil {
		err = buffered.Flush()
	}
	return stats.Lost, err
}

// elfOptions names the segment that maps the kernel image. Readers of ELF cores use it when VMCOREINFO does not say
// where the kernel lies.
func elfOptions(img vmcore.Image) elfcore.WriteOptions {
	var opt elfcore.WriteOptions
	for _, s := range img.Info().Segments {
		if s.Vaddr >= kernelImage && s.Paddr != vmcore.NoPaddr {
			opt.Text = s
		}
	}
	return opt
}

// kernelImage is __START_KERNEL_map of x86_64: the virtual address of the kernel image.
const kernelImage = mem.VirtAddr(0xffffffff80000000)
