package initrd

import (
	"debug/elf"

	"github.com/corehaul/corehaul/internal/elf64"
)

// page is the unit in which the kernel allocates the memory of a module.
const page = 4 << 10

// loadedSize returns what a module takes in memory, in bytes: the sections that the kernel keeps (kernel/module/main.c,
// layout_sections), each in pages of its own, which is a little more than it takes.
func loadedSize(f *elf64.File) int64 {
	n := uint64(0)
	for _, s := range f.Sections {
		if elf.SectionFlag(s.Flags)&elf.SHF_ALLOC != 0 && s.Size < maxPacked {
			n += (s.Size + page - 1) / page * page
		}
	}
	return int64(min(n, 1<<40))
}
