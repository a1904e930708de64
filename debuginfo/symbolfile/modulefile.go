package symbolfile

import (
	"debug/dwarf"
	"debug/elf"
	"fmt"
	"strings"
)

// unitOfModule returns the compile unit of a module that has an address in memory, and its root.
func (f *File) unitOfModule(pc uint64) (*dwarf.Data, *dwarf.Entry, error) {
	if f.place.sections == nil {
		return nil, nil, ErrNoPlace
	}
	if f.module == nil {
		d, err := f.relocated()
		if err != nil {
			return nil, nil, err
		}
		f.module = d
	}
	r := f.module.Reader()
	for {
		root, err := r.Next()
		if err != nil {
			return nil, nil, err
		}
		if root == nil {
			return nil, nil, ErrNoLine
		}
		if root.Tag == dwarf.TagCompileUnit {
			w := walk{d: f.module, pc: pc}
			if has, err := w.has(root); err != nil || has {
				return f.module, root, err
			}
		}
		r.SkipChildren()
	}
}

// relocated reads the DWARF of a module with the addresses in memory.
func (f *File) relocated() (*dwarf.Data, error) {
	total := uint64(0)
	for _, s := range f.elf.Sections {
		if strings.HasPrefix(s.Name, ".zdebug_") {
			return nil, fmt.Errorf("section %.40q is compressed in the old way, which is not read: use objcopy --decompress-debug-sections", s.Name)
		}
		if strings.HasPrefix(s.Name, ".debug_") || s.Type == elf.SHT_RELA || //nolint:misspell // the name of the type
			s.Type == elf.SHT_SYMTAB || s.Type == elf.SHT_STRTAB {
			if total += s.Size; s.Size > maxModule || total > maxModule {
				return nil, fmt.Errorf("it has more than %d bytes of debugging information: too many for a module", maxModule)
			}
		}
	}
	file, err := f.placed()
	if err != nil {
		return nil, err
	}
	e, err := elf.NewFile(file)
	if err != nil {
		return nil, err
	}
	return e.DWARF()
}
