package triage

import (
	"encoding/hex"
	"errors"

	"github.com/corehaul/corehaul/debuginfo/symbolfile"
	"github.com/corehaul/corehaul/kernel/modules"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
)

// Inlined is a function that the compiler inlined, and where in it the task was.
type Inlined struct {
	Function string `json:"function,omitempty"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
}

// DebugFile names a file with debugging information. All of it is of the dump, and hostile.
type DebugFile struct {
	BuildID string // hexadecimal; "" if the kernel does not say
	Release string // uname -r
	Module  string // "" for the kernel image
}

// UseDebugFiles makes the frames of backtraces have the lines of the source. find is asked once for each file. It may return nil for a file that
// is not there. Memory does not close the files.
func (m *Memory) UseDebugFiles(find func(DebugFile) (*symbolfile.File, error)) {
	m.findDebug, m.debug = find, map[string]*symbolfile.File{}
}

// ImageFile names the file of the kernel image.
func (m *Memory) ImageFile() (want DebugFile) {
	m.part("the build id of the kernel", func() error {
		info := m.img.Info()
		want.Release = machine.FactsOf(info, m.k).Utsname.Release
		want.BuildID, _ = info.VMCOREINFO.String("BUILD-ID")
		return nil
	})
	return want
}

// ModuleFiles names the files of all modules.
func (m *Memory) ModuleFiles() (list []DebugFile) {
	if m.modules == nil {
		return nil
	}
	release := m.ImageFile().Release
	for _, x := range m.modules.All() {
		list = append(list, DebugFile{hex.EncodeToString(x.BuildID), release, x.Name})
	}
	return list
}

// setLines adds the lines of a frame. at is an address in the code of its call.
func (m *Memory) setLines(f *Frame, at mem.VirtAddr) {
	if m.findDebug == nil || m.symbols == nil {
		return
	}
	file := m.debugFileAt(at, f)
	if file == nil {
		return
	}
	m.part("the lines of "+f.Function, func() error {
		lines, err := file.Lines(uint64(at))
		if errors.Is(err, symbolfile.ErrNoLine) {
			return nil
		}
		for i, l := range lines {
			if i == len(lines)-1 {
				f.File, f.Line = l.File, l.Line
			} else {
				f.Inlined = append(f.Inlined, Inlined{l.Function, l.File, l.Line})
			}
		}
		return err
	})
}

// debugFileAt returns the file of the code at an address, nil if there is none.
func (m *Memory) debugFileAt(at mem.VirtAddr, f *Frame) *symbolfile.File {
	if f.Module == "" {
		if _, ok := m.symbols.Find(at); !ok {
			return nil // code made at run time
		}
		return m.debugFile(nil)
	}
	if m.modules == nil {
		return nil
	}
	module, ok := m.modules.At(at)
	if !ok {
		return nil
	}
	return m.debugFile(module)
}

// debugFile opens the file of a module, or of the kernel image, once, and finds its place by the addresses of symbols.
func (m *Memory) debugFile(module *modules.Module) *symbolfile.File {
	name, what := "", "the debugging information of the kernel"
	if module != nil {
		name, what = module.Name, "the debugging information of module "+module.Name
	}
	if file, known := m.debug[name]; known {
		return file
	}
	m.debug[name] = nil
	m.part(what, func() error {
		want := m.ImageFile()
		if module != nil {
			want.Module, want.BuildID = name, hex.EncodeToString(module.BuildID)
		}
		file, err := m.findDebug(want)
		if err == nil && file != nil {
			err = file.Place(m.addressesOf(module))
		}
		if err == nil {
			m.debug[name] = file
		}
		return err
	})
	return m.debug[name]
}

// addressesOf returns the addresses of a module's symbols, or of the kernel image's, by their names. Of modules, it leaves out names that several
// symbols have.
func (m *Memory) addressesOf(module *modules.Module) func(string) (uint64, bool) {
	if module == nil {
		return func(name string) (uint64, bool) {
			a, ok := m.symbols.Address(name)
			return uint64(a), ok
		}
	}
	byName := map[string]uint64{}
	list, _ := m.modules.Symbols(module) // without symbols, the file has no place, which says enough
	for _, s := range list {
		if _, twice := byName[s.Name]; twice {
			byName[s.Name] = 0
		} else {
			byName[s.Name] = uint64(s.Addr)
		}
	}
	return func(name string) (uint64, bool) {
		a := byName[name]
		return a, a != 0
	}
}
