package modules_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/modules"
	"github.com/corehaul/corehaul/kernel/types/typestest"
	"github.com/corehaul/corehaul/mem"
)

// machine is a kernel with modules, whose memory is in the image.
type machine struct {
	*typestest.Kernel
	layouts bool // core_layout, not mem
	nodes   []mem.VirtAddr
}

func structures(layouts bool) []btf.Type {
	i, l, p, list := typestest.Int, typestest.Long, typestest.Pointer, typestest.List
	var members []typestest.Member
	add := func(name string, typ btf.Type) { members = append(members, typestest.Member{Name: name, Type: typ}) }
	add("state", i)
	add("list", list)
	add("name", typestest.Text(56))
	for _, name := range []string{"version", "srcversion", "kallsyms"} {
		add(name, p)
	}
	add("taints", l)
	layout := typestest.Struct("module_layout", typestest.Member{Name: "base", Type: p}, typestest.Member{Name: "size", Type: i})
	memory := typestest.Struct("module_memory", typestest.Member{Name: "base", Type: p}, typestest.Member{Name: "size", Type: i})
	if layouts {
		add("core_layout", layout)
		add("init_layout", layout)
	} else {
		add("mem", typestest.Array(memory, 7))
		add("build_id", typestest.Text(20))
	}
	add("arch", typestest.Struct("mod_arch_specific", typestest.Member{Name: "num_orcs", Type: i},
		typestest.Member{Name: "orc_unwind_ip", Type: p}, typestest.Member{Name: "orc_unwind", Type: p}))
	add("source_list", list)
	add("refcnt", i)
	kind := &btf.Enum{Name: "mod_mem_type", Size: 4}
	for n, name := range []string{"MOD_TEXT", "MOD_DATA", "MOD_RODATA", "MOD_RO_AFTER_INIT", "MOD_INIT_TEXT", "MOD_INIT_DATA", "MOD_INIT_RODATA"} {
		kind.Values = append(kind.Values, btf.EnumValue{Name: name, Value: uint64(n)})
	}
	return []btf.Type{
		typestest.Struct("module", members...),
		typestest.Struct("module_use", typestest.Member{Name: "source_list", Type: list}, typestest.Member{Name: "target_list", Type: list}, typestest.Member{Name: "source", Type: p}),
		typestest.Struct("mod_kallsyms", typestest.Member{Name: "symtab", Type: p}, typestest.Member{Name: "num_symtab", Type: i},
			typestest.Member{Name: "strtab", Type: p}, typestest.Member{Name: "typetab", Type: p}),
		memory, kind,
	}
}

func newMachine(layouts bool) *machine {
	m := &machine{Kernel: typestest.New(structures(layouts)...), layouts: layouts}
	m.nodes = []mem.VirtAddr{m.Variable("modules", 16)}
	m.Link(m.nodes...)
	return m
}

const regionSize = 0x2000

// add loads a module. It returns its struct module and its memory.
func (m *machine) add(name string) (at, base mem.VirtAddr) {
	at, base = m.Make("module"), m.Space(regionSize)
	m.SetText(at, "module", "name", name)
	m.Set(at, "module", "refcnt", 1)
	uses := m.Member(at, "module", "source_list")
	m.Link(uses)
	if m.layouts {
		m.Set(at, "module", "core_layout.base", uint64(base))
		m.Set(at, "module", "core_layout.size", regionSize)
	} else {
		for i, r := range [][2]uint64{{uint64(base), 0x1000}, {uint64(base + 0x1000), 0x800}} {
			entry := m.Member(at, "module", "mem") + mem.VirtAddr(16*i)
			m.WriteVirt(entry, append(kerneltest.Uint64(r[0]), kerneltest.Uint32(uint32(r[1]))...))
		}
	}
	m.nodes = slices.Insert(m.nodes, 1, m.Member(at, "module", "list")) // the newest comes first
	m.Link(m.nodes...)
	return at, base
}

// symbol is a symbol of a module: an offset in its memory, and a name.
type symbol struct {
	offset mem.VirtAddr
	name   string
	kind   byte
}

// setSymbols gives a module symbols.
func (m *machine) setSymbols(at, base mem.VirtAddr, list ...symbol) (tables mem.VirtAddr) {
	tables = m.Make("mod_kallsyms")
	symtab, kinds, names := m.Space(uint64(24*len(list))), m.Space(uint64(len(list))), base+0x1000
	text := []byte{0}
	for i, s := range list {
		entry := append(kerneltest.Uint32(uint32(len(text))), 0, 0, 1, 0)
		entry = append(entry, kerneltest.Uint64(uint64(base+s.offset))...)
		m.WriteVirt(symtab+mem.VirtAddr(24*i), entry)
		m.WriteVirt(kinds+mem.VirtAddr(i), []byte{s.kind})
		text = append(append(text, s.name...), 0)
	}
	m.WriteVirt(names, text)
	for path, value := range map[string]mem.VirtAddr{"symtab": symtab, "strtab": names, "typetab": kinds, "num_symtab": mem.VirtAddr(len(list))} {
		m.Set(tables, "mod_kallsyms", path, uint64(value))
	}
	m.Set(at, "module", "kallsyms", uint64(tables))
	return tables
}

// use makes one module use another.
func (m *machine) use(user, used mem.VirtAddr) mem.VirtAddr {
	at := m.Make("module_use")
	m.Set(at, "module_use", "source", uint64(user))
	m.Link(m.Member(used, "module", "source_list"), m.Member(at, "module_use", "source_list"))
	m.Set(used, "module", "refcnt", 2)
	return at
}

func (m *machine) load() (*modules.List, error) { return modules.Load(m.Open(), m.Names, m.Types) }

func names(list *modules.List) string {
	var all []string
	for _, m := range list.All() {
		all = append(all, m.Name)
	}
	return strings.Join(all, " ")
}

func TestLoad(t *testing.T) {
	for _, layouts := range []bool{true, false} {
		t.Run(fmt.Sprintf("layouts %v", layouts), func(t *testing.T) {
			m := newMachine(layouts)
			virtio, _ := m.add("virtio")
			net, base := m.add("virtio_net")
			m.use(net, virtio)
			m.Set(net, "module", "taints", 1<<12|1<<13|1<<15|1<<9|1)
			m.Set(net, "module", "state", 1)
			version := m.Space(16)
			m.WriteVirt(version, []byte("1.2.3\x00"))
			m.Set(net, "module", "version", uint64(version))
			m.Set(net, "module", "srcversion", 0x10) // wild
			m.Set(net, "module", "arch.num_orcs", 7)
			m.Set(net, "module", "arch.orc_unwind", 0xffffffff81001000)
			m.Set(net, "module", "arch.orc_unwind_ip", 0xffffffff81002000)
			list, err := m.load()
			if err != nil {
				t.Fatal(err)
			}
			if got := names(list); got != "virtio_net virtio" {
				t.Fatalf("modules %q", got)
			}
			got := list.All()[0]
			if got.Taints != "POEK" || !got.Livepatch() || got.Version != "1.2.3" || got.SrcVersion != "" || got.State.String() != "Loading" || got.References != 0 || got.Base() != base || got.Addr != net {
				t.Errorf("got %+v", got)
			}
			if want := map[bool]uint64{true: regionSize, false: 0x1800}[layouts]; got.Size() != want {
				t.Errorf("size %#x, want %#x", got.Size(), want)
			}
			if used := list.All()[1]; used.References != 1 || !slices.Equal(used.UsedBy, []string{"virtio_net"}) || used.BuildID != nil {
				t.Errorf("got %+v", used)
			}
			if orc, ok := list.ORC(base + 5); !ok || orc.Count != 7 || orc.IPs != 0xffffffff81002000 || orc.Entries != 0xffffffff81001000 {
				t.Errorf("ORC: %+v, %v", orc, ok)
			}
			if orc, ok := list.ORC(list.All()[1].Base()); !ok || orc.Count != 0 {
				t.Errorf("ORC of a module without a table: %+v, %v", orc, ok)
			}
			for _, a := range []mem.VirtAddr{base - 1, base + regionSize} {
				if orc, ok := list.ORC(a); ok {
					t.Errorf("ORC at %v: %+v", a, orc)
				}
			}
		})
	}
}

func TestBuildID(t *testing.T) {
	m := newMachine(false)
	at, _ := m.add("one")
	id := bytes.Repeat([]byte{0, 7}, 10)
	m.WriteVirt(m.Member(at, "module", "build_id"), id)
	list, err := m.load()
	if err != nil || !bytes.Equal(list.All()[0].BuildID, id) {
		t.Errorf("got %+v, %v", list.All()[0], err)
	}
}

func TestInit(t *testing.T) {
	m := newMachine(true)
	at, _ := m.add("starting")
	init := m.Space(regionSize)
	m.Set(at, "module", "init_layout.base", uint64(init))
	m.Set(at, "module", "init_layout.size", 0x300)
	list, err := m.load()
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := list.At(init + 0x2ff); !ok || got.Size() != regionSize || len(got.Regions) != 2 || !got.Regions[1].Kind.Init() {
		t.Errorf("got %+v, %v", got, ok)
	}
	if _, ok := list.At(init + 0x300); ok {
		t.Error("a module behind its end")
	}
}

func TestFind(t *testing.T) {
	for _, layouts := range []bool{true, false} {
		m := newMachine(layouts)
		at, base := m.add("virtio_net")
		m.setSymbols(at, base,
			symbol{0x200, "start_xmit", 't'}, symbol{0x200, "$x", 't'}, symbol{0x0, "probe", 't'}, symbol{0x200, "alias", 'T'}, symbol{0x0, "$x", 't'},
			symbol{0x280, ".L5", 't'}, symbol{0x300, "", 't'}, symbol{0x1400, "config", 'd'}, symbol{0x1500, "$d", 'd'})
		list, err := m.load()
		if err != nil {
			t.Fatal(err)
		}
		dataEnd := map[bool]mem.VirtAddr{true: 0x2000, false: 0x1800}[layouts]
		textEnd := map[bool]mem.VirtAddr{true: 0x1400, false: 0x1000}[layouts]
		for offset, want := range map[mem.VirtAddr]string{
			0: "probe+0x0/0x200", 0x1ff: "probe+0x1ff/0x200", 0x200: fmt.Sprintf("start_xmit+0x0/%#x", uint64(textEnd-0x200)),
			0x290: fmt.Sprintf("start_xmit+0x90/%#x", uint64(textEnd-0x200)), textEnd - 1: fmt.Sprintf("start_xmit+%#x/%#x", uint64(textEnd-0x201), uint64(textEnd-0x200)),
			0x1510: fmt.Sprintf("config+0x110/%#x", uint64(dataEnd-0x1400)),
		} {
			in, s, ok := list.Find(base + offset)
			if got := fmt.Sprintf("%s+%#x/%#x", s.Name, uint64(base+offset-s.Addr), s.Size); !ok || got != want || in.Name != "virtio_net" {
				t.Errorf("layouts %v, %#x: got %s, %v, want %s", layouts, uint64(offset), got, ok, want)
			}
		}
		if symbols, err := list.Symbols(list.All()[0]); err != nil || len(symbols) != 8 || symbols[0].Name != "probe" || symbols[0].Type != 't' {
			t.Errorf("symbols: %+v, %v", symbols, err)
		}
		if _, s, ok := list.Find(base + regionSize); ok {
			t.Errorf("behind the end: %+v", s)
		}
	}
}

func TestSymbolsRefused(t *testing.T) {
	for name, damage := range map[string]func(m *machine, at, tables mem.VirtAddr){
		"no symbols":    func(m *machine, at, _ mem.VirtAddr) { m.Set(at, "module", "kallsyms", 0) },
		"mod_kallsyms":  func(m *machine, at, _ mem.VirtAddr) { m.Set(at, "module", "kallsyms", 0x10) },
		"room for":      func(m *machine, _, tables mem.VirtAddr) { m.Set(tables, "mod_kallsyms", "num_symtab", 1<<32-1) },
		"symbols of":    func(m *machine, _, tables mem.VirtAddr) { m.Set(tables, "mod_kallsyms", "symtab", 0x10) },
		"names of":      func(m *machine, _, tables mem.VirtAddr) { m.Set(tables, "mod_kallsyms", "strtab", 0x10) },
		"types of":      func(m *machine, _, tables mem.VirtAddr) { m.Set(tables, "mod_kallsyms", "typetab", 0x10) },
		"not in the mo": func(m *machine, _, tables mem.VirtAddr) { m.Set(tables, "mod_kallsyms", "strtab", uint64(m.Space(64))) },
	} {
		m := newMachine(true)
		at, base := m.add("one")
		damage(m, at, m.setSymbols(at, base, symbol{0, "probe", 't'}))
		list, err := m.load()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := list.Symbols(list.All()[0]); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		if in, s, ok := list.Find(base); ok || in == nil {
			t.Errorf("%s: found %+v in %v", name, s, in)
		}
	}
}

// TestSymbolsAreBounded has many modules that share one large table.
func TestSymbolsAreBounded(t *testing.T) {
	m := newMachine(true)
	const n = 16000
	first, base := m.add("m0")
	tables := m.setSymbols(first, base, symbol{0, "probe", 't'})
	m.Set(tables, "mod_kallsyms", "num_symtab", n)
	m.Set(tables, "mod_kallsyms", "symtab", uint64(m.Space(24*n)))
	m.Set(tables, "mod_kallsyms", "typetab", uint64(m.Space(n)))
	for i := range 80 {
		at, _ := m.add(fmt.Sprintf("m%d", i+1))
		m.Set(at, "module", "kallsyms", uint64(tables))
		m.Set(at, "module", "core_layout.base", uint64(base))
	}
	loaded, err := m.load()
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, module := range loaded.All() {
		if _, err := loaded.Symbols(module); err != nil {
			refused++
		}
	}
	if refused == 0 || refused > 70 {
		t.Errorf("symbols of %d modules were refused", refused)
	}
}

func TestDamagedList(t *testing.T) {
	for name, tc := range map[string]struct {
		damage func(m *machine, all []mem.VirtAddr)
		names  string
		say    string
	}{
		"to nowhere": {func(m *machine, all []mem.VirtAddr) { m.Set(all[2], "module", "list.next", 0) }, "e d c a b", "struct module"},
		"loop":       {func(m *machine, all []mem.VirtAddr) { m.Set(all[2], "module", "list.next", uint64(m.nodes[1])) }, "e d c a b", "there before"},
		"head":       {func(m *machine, _ []mem.VirtAddr) { m.WriteVirt(m.nodes[0], kerneltest.Uint64(0x10)) }, "e d c b a", "struct module"},
		"wild head":  {func(m *machine, _ []mem.VirtAddr) { m.Names["modules"] = 0x10 }, "", "list of modules"},
		"no name":    {func(m *machine, all []mem.VirtAddr) { m.SetText(all[2], "module", "name", "") }, "e d a b", "not those of a module"},
		"state":      {func(m *machine, all []mem.VirtAddr) { m.Set(all[2], "module", "state", 9) }, "e d a b", "state 9"},
		"no memory":  {func(m *machine, all []mem.VirtAddr) { m.Set(all[2], "module", "core_layout.base", 0) }, "e d a b", "no memory"},
		"use": {func(m *machine, all []mem.VirtAddr) {
			m.Set(m.use(all[0], all[1]), "module_use", "source_list.next", 0x10)
		}, "e d c b a", "uses of module"},
		"use loop": {func(m *machine, all []mem.VirtAddr) {
			at := m.use(all[0], all[1])
			m.Set(at, "module_use", "source_list.next", uint64(at))
		}, "e d c b a", "uses of module"},
		"user": {func(m *machine, all []mem.VirtAddr) { m.use(0x10, all[1]) }, "e d c b a", "uses of module"},
		"orc": {func(m *machine, all []mem.VirtAddr) {
			for _, at := range all {
				m.Set(at, "module", "arch.num_orcs", 1<<32-1)
			}
		}, "e d c b a", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(true)
			var all []mem.VirtAddr
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				at, _ := m.add(name)
				all = append(all, at)
			}
			tc.damage(m, all)
			list, err := m.load()
			if got := names(list); sorted(got) != sorted(tc.names) {
				t.Errorf("got %q, want %q", got, tc.names)
			}
			if (err == nil) != (tc.say == "") || err != nil && !strings.Contains(err.Error(), tc.say) {
				t.Errorf("got error %v, want %q", err, tc.say)
			}
			if _, ok := list.ORC(0xffffffff81100000); ok {
				t.Error("an ORC table of nothing")
			}
		})
	}
}

func sorted(words string) string {
	list := strings.Fields(words)
	slices.Sort(list)
	return strings.Join(list, " ")
}

// TestSearch has a kernel whose symbols are those of code alone.
func TestSearch(t *testing.T) {
	for _, layouts := range []bool{true, false} {
		m := newMachine(layouts)
		m.Names["_einittext"] = m.Image(0x8123)
		decoy := m.Space(64) // a list of something else, which points back
		m.Link(decoy, decoy+32)
		m.nodes[0] = m.Space(16)
		delete(m.Names, "modules")
		m.Space(kerneltest.PageSize) // what follows begins with a page, as a module does, in whose memory its struct module lies
		at, base := m.add("near")
		if list, err := m.load(); list != nil || err == nil {
			t.Errorf("layouts %v: a module outside of itself: %v, %v", layouts, list, err)
		}
		size := uint64(base + regionSize - at)
		if layouts {
			m.Set(at, "module", "core_layout.base", uint64(at))
			m.Set(at, "module", "core_layout.size", size)
		} else {
			entry := m.Member(at, "module", "mem")
			m.WriteVirt(entry, append(kerneltest.Uint64(uint64(at)), kerneltest.Uint32(uint32(size))...))
		}
		list, err := m.load()
		if err != nil || names(list) != "near" {
			t.Errorf("layouts %v: got %v, %v", layouts, list, err)
		}
		m.WriteVirt(m.Member(at, "module", "list")+8, kerneltest.Uint64(uint64(decoy)))
		if list, err := m.load(); list != nil || err == nil {
			t.Errorf("layouts %v: a module that does not point back: %v, %v", layouts, list, err)
		}
	}
}

// TestSearchIsBounded has a long list of something else before that of the modules.
func TestSearchIsBounded(t *testing.T) {
	for entries, found := range map[int]bool{10: true, 16<<10 + 1: false} {
		m := newMachine(true)
		delete(m.Names, "modules")
		m.Names["_einittext"] = m.Image(0x8123)
		var nodes []mem.VirtAddr
		first := m.Space(uint64(16 * entries))
		for i := range entries {
			nodes = append(nodes, first+mem.VirtAddr(16*i))
		}
		m.Link(nodes...)
		m.nodes[0] = m.Space(16)
		m.Space(kerneltest.PageSize)
		at, base := m.add("near")
		m.Set(at, "module", "core_layout.base", uint64(at))
		m.Set(at, "module", "core_layout.size", uint64(base+regionSize-at))
		if list, err := m.load(); (list != nil) != found {
			t.Errorf("behind %d entries: %v, %v", entries, list, err)
		}
	}
}

func TestMissing(t *testing.T) {
	m := newMachine(true)
	delete(m.Names, "modules")
	if list, err := m.load(); list != nil || err == nil {
		t.Errorf("without the symbol: %v, %v", list, err)
	}
	for gone := range 5 {
		m := newMachine(false)
		m.Types = typestest.New(slices.Delete(structures(false), gone, gone+1)...).Types
		list, err := m.load()
		if gone == 3 { // struct module_memory is still there, as a member
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if list != nil || err == nil {
			t.Errorf("without type %d: %v, %v", gone, list, err)
		}
	}
}

// TestLongTexts has BTF whose names and build IDs would fill the memory.
func TestLongTexts(t *testing.T) {
	for _, member := range []string{"name", "build_id"} {
		m := newMachine(false)
		m.add("one")
		list := structures(false)
		module := list[0].(*btf.Struct)
		module.Members[slices.IndexFunc(module.Members, func(m btf.Member) bool { return m.Name == member })].Type = typestest.Text(60000)
		m.Types = typestest.New(list...).Types
		if list, err := m.load(); list != nil || err == nil || !strings.Contains(err.Error(), member) {
			t.Errorf("%s: got %v, %v", member, list, err)
		}
	}
}

// FuzzLoad overwrites memory around the modules.
func FuzzLoad(f *testing.F) {
	f.Add(false, uint32(0), uint64(0), uint32(64), uint64(1))
	f.Add(true, uint32(0x150), uint64(0xffffffff81010000), uint32(0x300), uint64(0xdead000000000100))
	f.Fuzz(func(_ *testing.T, layouts bool, at uint32, value uint64, at2 uint32, value2 uint64) {
		m := newMachine(layouts)
		one, base := m.add("one")
		m.setSymbols(one, base, symbol{0, "probe", 't'}, symbol{0x100, "remove", 't'})
		two, _ := m.add("two")
		m.use(one, two)
		start := m.Names["modules"]
		end := uint32(m.Space(8) - start)
		m.WriteVirt(start+mem.VirtAddr(at%end), kerneltest.Uint64(value))
		m.WriteVirt(start+mem.VirtAddr(at2%end), kerneltest.Uint64(value2))
		list, err := m.load()
		if list == nil {
			panic(err)
		}
		for _, module := range list.All() {
			_, _ = list.Symbols(module)
			_, _, _ = list.Find(module.Base())
			_, _ = list.ORC(module.Base())
		}
	})
}
