package initrd

import (
	"debug/elf"
	"testing"

	"github.com/corehaul/corehaul/internal/elf64"
)

func TestLoadedSize(t *testing.T) {
	section := func(flags elf.SectionFlag, size uint64) elf64.Section {
		return elf64.Section{Section64: elf.Section64{Flags: uint64(flags), Size: size}}
	}
	for _, tc := range []struct {
		name     string
		sections []elf64.Section
		want     int64
	}{
		{"text, data, symbols that are not kept", []elf64.Section{section(elf.SHF_ALLOC, 1), section(elf.SHF_ALLOC|elf.SHF_WRITE, page+1), section(0, 1<<20)}, 3 * page},
		{"nothing", nil, 0},
		{"a size that is a lie", []elf64.Section{section(elf.SHF_ALLOC, 1<<63)}, 0},
	} {
		if got := loadedSize(&elf64.File{Sections: tc.sections}); got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, got, tc.want)
		}
	}
}
