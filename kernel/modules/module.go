package modules

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/mem"
)

// State is what the kernel is doing with a module (enum module_state).
type State uint32

// All states.
const (
	Live     State = 0 // in use
	Coming   State = 1 // its initialization runs
	Going    State = 2 // it is being removed
	Unformed State = 3 // it is being loaded, and its members may have no values yet
)

// String returns the state as /proc/modules has it, which lists no unformed modules.
func (s State) String() string {
	switch s {
	case Live:
		return "Live"
	case Coming:
		return "Loading"
	case Going:
		return "Unloading"
	case Unformed:
		return "Unformed"
	}
	return fmt.Sprintf("State(%d)", uint32(s))
}

// Kind is what a Region has: the kernel's enum mod_mem_type in lower case without "mod_", or "core" and "init" for all of it.
type Kind string

// All kinds, in the order of the kernel's enumeration.
const (
	Core        Kind = "core" // before 6.4 text, rodata and data
	InitCore    Kind = "init"
	Text        Kind = "text"
	Data        Kind = "data"
	ROData      Kind = "rodata"
	ROAfterInit Kind = "ro_after_init"
	InitText    Kind = "init_text"
	InitData    Kind = "init_data"
	InitROData  Kind = "init_rodata"
)

// Init reports whether the region is freed after the initialization of the module.
func (k Kind) Init() bool { return k == InitCore || k == InitText || k == InitData || k == InitROData }

// kinds has the kinds of module.mem by their enumerators.
var kinds = []struct {
	enumerator string
	kind       Kind
}{
	{"MOD_TEXT", Text},
	{"MOD_DATA", Data},
	{"MOD_RODATA", ROData},
	{"MOD_RO_AFTER_INIT", ROAfterInit},
	{"MOD_INIT_TEXT", InitText},
	{"MOD_INIT_DATA", InitData},
	{"MOD_INIT_RODATA", InitROData},
}

// taints has the letter of each bit that modules can have (taint_flags in kernel/panic.c with .module set).
var taints = []struct {
	bit    uint
	letter byte
}{{0, 'P'}, {1, 'F'}, {10, 'C'}, {12, 'O'}, {13, 'E'}, {15, 'K'}, {16, 'X'}, {17, 'T'}, {18, 'N'}, {19, 'J'}}

// views has the structures that are read.
type views struct {
	module, use, kallsyms *types.View
	mem                   []memPlace // of module.mem; empty if the kernel has layouts instead
}

// memPlace is where a struct module_memory is in a struct module.
type memPlace struct {
	kind       Kind
	base, size uint64 // offsets in module.mem
}

// Limits of members, so that modules' texts stay small.
const (
	maxModuleName = 512 // bytes; MODULE_NAME_LEN is 56
	maxBuildID    = 64  // bytes; BUILD_ID_SIZE_MAX is 20
)

func newViews(known *types.Types) (*views, error) {
	v := &views{}
	var err error
	v.module, err = known.View("module", []string{"list", "list.next", "list.prev", "state", "name", "taints"},
		"version", "srcversion", "build_id", "refcnt", "source_list", "kallsyms", "mem",
		"core_layout.base", "core_layout.size", "init_layout.base", "init_layout.size",
		"arch.num_orcs", "arch.orc_unwind", "arch.orc_unwind_ip")
	if err != nil {
		return nil, err
	}
	for path, limit := range map[string]uint64{"name": maxModuleName, "build_id": maxBuildID} {
		if size := v.module.Field(path).Size; size > limit {
			return nil, fmt.Errorf("module.%s has %d bytes, more than %d", path, size, limit)
		}
	}
	if v.module.Has("source_list") { // CONFIG_MODULE_UNLOAD
		if v.use, err = known.View("module_use", []string{"source_list", "source"}); err != nil {
			return nil, err
		}
	}
	if v.module.Has("kallsyms") {
		if v.kallsyms, err = known.View("mod_kallsyms", []string{"symtab", "num_symtab", "strtab"}, "typetab"); err != nil {
			return nil, err
		}
	}
	if v.module.Has("core_layout.base") {
		return v, nil
	}
	v.mem, err = memPlaces(known, v.module.Field("mem"))
	return v, err
}

// memPlaces finds the parts of module.mem.
func memPlaces(known *types.Types, array types.Field) ([]memPlace, error) {
	if array.Len == 0 {
		return nil, fmt.Errorf("struct module has neither core_layout nor mem: %w", types.ErrNotFound)
	}
	base, err := known.Field("module_memory", "base")
	if err != nil {
		return nil, err
	}
	size, err := known.Field("module_memory", "size")
	if err != nil {
		return nil, err
	}
	stride := array.Size / array.Len
	if base.Offset+8 > stride || size.Offset+4 > stride {
		return nil, fmt.Errorf("struct module_memory has %d bytes, too few for its members", stride)
	}
	var list []memPlace
	for _, k := range kinds {
		i, err := known.Enum("mod_mem_type", k.enumerator)
		if err != nil {
			return nil, err
		}
		if i < 0 || uint64(i) >= array.Len {
			return nil, fmt.Errorf("%s is %d, module.mem has %d elements", k.enumerator, i, array.Len)
		}
		list = append(list, memPlace{k.kind, uint64(i)*stride + base.Offset, uint64(i)*stride + size.Offset})
	}
	return list, nil
}

// maxRegion bounds the bytes of one region: the space for modules has 1.5 GiB on x86_64 (MODULES_END), 2 GiB on arm64.
const maxRegion = 2 << 30

// maxState is the largest of enum module_state.
const maxState = 3

// decode makes a Module of a record. It fails if the record can be no module.
func (l *List) decode(rec types.Record, at mem.VirtAddr) (*Module, error) {
	state := rec.Uint("state")
	name := rec.Text("name")
	if state > maxState || name == "" || bytes.IndexByte(rec.Bytes("name"), 0) < 0 {
		return nil, fmt.Errorf("module at %v: name %.80q, state %d: not those of a module", at, name, state)
	}
	m := &Module{
		Addr: at, Name: name, State: State(state), Taints: letters(rec.Uint("taints")),
		References: int(int32(rec.Uint("refcnt"))) - 1, //nolint:gosec // a signed int; MODULE_REF_BASE is 1
		kallsyms:   rec.Pointer("kallsyms"),
	}
	if m.Regions = l.regions(rec); len(m.Regions) == 0 {
		return nil, fmt.Errorf("module %q at %v has no memory", name, at)
	}
	if !l.views.module.Has("refcnt") {
		m.References = 0
	}
	if id := rec.Bytes("build_id"); len(bytes.Trim(id, "\x00")) > 0 {
		m.BuildID = bytes.Clone(id)
	}
	m.Version = l.text(rec.Pointer("version"))
	m.SrcVersion = l.text(rec.Pointer("srcversion"))
	const maxORC = 8 << 20 // entries
	if n := rec.Uint("arch.num_orcs"); n <= maxORC {
		m.orc = unwind.ORCTable{IPs: rec.Pointer("arch.orc_unwind_ip"), Entries: rec.Pointer("arch.orc_unwind"), Count: int(n)}
	}
	return m, nil
}

// regions lists the parts of a module, its code first.
func (l *List) regions(rec types.Record) []Region {
	var list []Region
	add := func(kind Kind, base mem.VirtAddr, size uint64) {
		if base != 0 && size > 0 && size <= maxRegion {
			list = append(list, Region{kind, base, size})
		}
	}
	if len(l.views.mem) == 0 {
		add(Core, rec.Pointer("core_layout.base"), rec.Uint("core_layout.size"))
		add(InitCore, rec.Pointer("init_layout.base"), rec.Uint("init_layout.size"))
		return list
	}
	b := rec.Bytes("mem")
	for _, p := range l.views.mem {
		add(p.kind, mem.VirtAddr(binary.LittleEndian.Uint64(b[p.base:])), uint64(binary.LittleEndian.Uint32(b[p.size:])))
	}
	return list
}

func letters(bits uint64) string {
	var b []byte
	for _, t := range taints {
		if bits>>t.bit&1 == 1 {
			b = append(b, t.letter)
		}
	}
	return string(b)
}

// text reads a string of the kernel, up to 255 bytes. It is empty if there is none or it cannot be read.
func (l *List) text(at mem.VirtAddr) string {
	if at == 0 {
		return ""
	}
	var text []byte
	for len(text) < 255 {
		var c [1]byte
		if err := l.k.ReadVirt(c[:], at+mem.VirtAddr(len(text))); err != nil || c[0] == 0 {
			break
		}
		text = append(text, c[0])
	}
	return string(text)
}
