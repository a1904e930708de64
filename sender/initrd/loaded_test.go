package initrd

import (
	"debug/elf"
	"testing"
)

func TestLoadedSize(t *testing.T) {
	section := func(flags elf.SectionFlag, size uint64) *elf.Section {
		return &elf.Section{SectionHeader: elf.SectionHeader{Flags: flags, Size: size}}
	}
	for _, tc := range []struct {
		name     string
		sections []*elf.Section
		want     int64
	}{
		{"text, data, symbols that are not kept", []*elf.Section{section(elf.SHF_ALLOC, 1), section(elf.SHF_ALLOC|elf.SHF_WRITE, page+1), section(0, 1<<20)}, 3 * page},
		{"nothing", nil, 0},
		{"a size that is a lie", []*elf.Section{section(elf.SHF_ALLOC, 1<<63)}, 0},
	} {
		if got := loadedSize(&elf.File{Sections: tc.sections}); got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, got, tc.want)
		}
	}
}
