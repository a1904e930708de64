// Package modules reads the modules of a crashed kernel: what they are, where they lie, their symbols and their ORC tables.
//
// It finds the list through the symbol modules and the kernel's own types (include/linux/module.h), by the presence of
// members and not by version. It knows both layouts of modules in memory: core_layout and init_layout, and since 6.4
// (ac3b43283923) the array mem with a range for each kind of contents. BTF is needed. Kernels whose symbols are
// those of code alone (no CONFIG_KALLSYMS_ALL) are searched for the list. Symbols of modules need CONFIG_KALLSYMS.
//
// Memory is hostile input. A list that loops, or that points to something that is no module, gives what was found up to
// there, with an error that says where. Numbers of modules and symbols, and the memory that they take, are bounded. A List
// reads symbols when they are first asked for. It is safe for concurrent use.
package modules

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/mem"
)

// Module is a module of the kernel. Texts may hold any bytes but NUL.
type Module struct {
	Addr       mem.VirtAddr // of its struct module
	Name       string
	State      State
	Regions    []Region // of its memory, at least one; those for its initialization are gone afterwards
	Taints     string   // as in /proc/modules: letters of what it tainted the kernel with
	Version    string   // MODULE_VERSION, often empty
	SrcVersion string   // checksum of its sources, if the kernel was built to have it
	BuildID    []byte   // 20 bytes, nil if the kernel does not keep it (CONFIG_STACKTRACE_BUILD_ID)
	// References is how often it is in use, UsedBy which modules use it.
	References int
	UsedBy     []string

	orc      unwind.ORCTable
	kallsyms mem.VirtAddr // struct mod_kallsyms
	once     sync.Once
	symbols  []kallsyms.Symbol
	printed  []int // of symbols, the first of each address that the kernel prints; ascending
	err      error
}

// Region is a part of a module's memory.
type Region struct {
	Kind Kind
	Base mem.VirtAddr
	Size uint64 // bytes
}

func (r Region) contains(a mem.VirtAddr) bool { return a >= r.Base && uint64(a-r.Base) < r.Size }

// Base returns the start of the module's code, which /proc/modules and crash show.
func (m *Module) Base() mem.VirtAddr { return m.Regions[0].Base }

// Size returns the bytes of the module without those for its initialization.
func (m *Module) Size() (n uint64) {
	for _, r := range m.Regions {
		if !r.Kind.Init() {
			n += r.Size
		}
	}
	return n
}

// Livepatch reports whether the module is a live patch: its functions replace those of the kernel image or of other modules. The
// kernel gives such a module a taint of its own since 4.9 (2992ef29ae01, "livepatch/module: make TAINT_LIVEPATCH module-specific").
func (m *Module) Livepatch() bool { return strings.Contains(m.Taints, "K") }

func (m *Module) contains(a mem.VirtAddr) bool {
	return slices.ContainsFunc(m.Regions, func(r Region) bool { return r.contains(a) })
}

// maxModules is far above what any kernel has loaded.
const maxModules = 4096

// List has the modules of one kernel.
type List struct {
	k       *kernel.Kernel
	known   *types.Types
	symbols types.Symbols
	views   *views
	modules []*Module // in the order of the kernel's list: the newest first
	budget  budget
}

// Load reads the list of modules. With an error, the List has those that could be read nevertheless: it is nil only if there
// is no way to know any.
func Load(k *kernel.Kernel, symbols types.Symbols, known *types.Types) (*List, error) {
	v, err := newViews(known)
	if err != nil {
		return nil, err
	}
	l := &List{k: k, known: known, symbols: symbols, views: v}
	head, ok := symbols.Address("modules")
	if !ok {
		if head, ok = l.searchHead(); !ok {
			return nil, errors.New("the kernel's symbols lack modules, and its data has no list of any: it has those of code alone, or this one could not be read")
		}
	}
	w := walk{l: l, head: head, seen: map[mem.VirtAddr]bool{}}
	if !w.follow("list.next") {
		// What lies behind the break is found the other way round.
		newer := l.modules
		l.modules = nil
		w.follow("list.prev")
		slices.Reverse(l.modules)
		l.modules = append(newer, l.modules...)
	}
	w.addUsers()
	return l, errors.Join(w.broken...)
}

// All returns the modules, those loaded last first. Callers must not change them.
func (l *List) All() []*Module { return l.modules }

// At returns the module whose memory has an address.
func (l *List) At(a mem.VirtAddr) (*Module, bool) {
	i := slices.IndexFunc(l.modules, func(m *Module) bool { return m.contains(a) })
	if i < 0 {
		return nil, false
	}
	return l.modules[i], true
}

// ORC returns the ORC table of the module whose memory has an address, with Count 0 if it has none. It implements
// unwind.Modules.
func (l *List) ORC(a mem.VirtAddr) (unwind.ORCTable, bool) {
	m, ok := l.At(a)
	if !ok {
		return unwind.ORCTable{}, false
	}
	return m.orc, true
}

// walk reads the list.
type walk struct {
	l      *List
	head   mem.VirtAddr
	seen   map[mem.VirtAddr]bool
	broken []error
	using  []usage
}

// follow reads modules along one link of the list. It reports whether it came back to the head.
func (w *walk) follow(link string) bool {
	view := w.l.views.module
	offset := mem.VirtAddr(view.Field("list").Offset)
	head := w.head
	if link == "list.prev" {
		head += 8 // list_head.prev follows list_head.next
	}
	next, err := w.l.k.ReadUint64(head)
	if err != nil {
		w.broken = append(w.broken, fmt.Errorf("list of modules: %w", err))
		return false
	}
	from := "the head of the list of modules"
	for at := mem.VirtAddr(next); at != w.head; {
		module := at - offset
		if w.seen[module] && link == "list.prev" {
			return true // this is where the way from the head ended
		}
		if w.seen[module] || len(w.seen) >= maxModules {
			w.broken = append(w.broken, fmt.Errorf("%s leads to the module at %v, which was there before or is one of too many", from, module))
			return false
		}
		w.seen[module] = true
		rec, err := w.read(module)
		if err != nil {
			w.broken = append(w.broken, fmt.Errorf("%s: %w", from, err))
			return false
		}
		at = rec.Pointer(link)
		from = fmt.Sprintf("%s of module %q at %v", link, rec.Text("name"), module)
	}
	return true
}

// read reads a module and takes it into the list.
func (w *walk) read(at mem.VirtAddr) (types.Record, error) {
	rec, err := w.l.views.module.Read(w.l.k, at)
	if err != nil {
		return rec, err
	}
	m, err := w.l.decode(rec, at)
	if err != nil {
		return rec, err
	}
	w.l.modules = append(w.l.modules, m)
	if w.l.views.module.Has("source_list") {
		w.using = append(w.using, usage{m, rec.Pointer("source_list"), rec.Addr("source_list")})
	}
	return rec, nil
}

// usage is the start of the list of the uses of a module.
type usage struct {
	of          *Module
	first, head mem.VirtAddr
}

// addUsers fills UsedBy. Each use is a struct module_use on the source_list of the module that is used.
func (w *walk) addUsers() {
	names := map[mem.VirtAddr]string{}
	for _, m := range w.l.modules {
		names[m.Addr] = m.Name
	}
	steps := 0
	for _, u := range w.using {
		for at := u.first; at != u.head; steps++ {
			rec, err := w.l.views.use.Read(w.l.k, at-mem.VirtAddr(w.l.views.use.Field("source_list").Offset))
			name := names[rec.Pointer("source")]
			if err == nil && (name == "" || steps > 16*maxModules) {
				err = fmt.Errorf("module_use at %v leads to no module", at)
			}
			if err != nil {
				w.broken = append(w.broken, fmt.Errorf("uses of module %q: %w", u.of.Name, err))
				break
			}
			u.of.UsedBy = append(u.of.UsedBy, name)
			at = rec.Pointer("source_list")
		}
	}
}
