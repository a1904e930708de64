package machine

import (
	"fmt"
	"runtime/debug"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/vmcore"
)

// Kernel opens the kernel memory of the dump that info describes. An unknown kernel is no error. It has warnings, see
// kernel.New.
func Kernel(memory kernel.PhysReader, info *vmcore.Info) (k *kernel.Kernel, err error) {
	defer func() {
		if p := recover(); p != nil {
			k, err = nil, fmt.Errorf("internal error: %v\n%s", p, debug.Stack())
		}
	}()
	return kernel.New(kernel.Config{
		Memory: memory, Info: info.VMCOREINFO, Machine: info.Machine, ByteOrder: info.ByteOrder,
		PageSize: info.PageSize, TextSegments: textSegments(info.Segments),
	})
}

// textSegments are the PT_LOADs that map the kernel.
func textSegments(segments []vmcore.Segment) []kernel.Segment {
	var list []kernel.Segment
	for _, g := range segments {
		if g.Paddr != vmcore.NoPaddr && g.Vaddr != 0 {
			list = append(list, kernel.Segment{Vaddr: g.Vaddr, Paddr: g.Paddr, Size: g.Memsz})
		}
	}
	return list
}
