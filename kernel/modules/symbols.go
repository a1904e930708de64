package modules

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/mem"
)

// ErrNoSymbols says that a module has no symbols in memory.
var ErrNoSymbols = errors.New("module has no symbols")

// Limits of one module's symbols. amdgpu, the largest, has 40,000 with 1.5 MiB of names.
const (
	maxSymbols = 1 << 19
	maxNames   = 16 << 20 // bytes
	maxName    = 512      // KSYM_NAME_LEN
)

// budget bounds what the symbols of all modules take together.
type budget struct {
	mu   sync.Mutex
	used int
}

const (
	maxBudget  = 64 << 20 // bytes
	symbolCost = 56       // of a kallsyms.Symbol and its number in printed, beside its name
)

// take reports whether n bytes more are there.
func (b *budget) take(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > maxBudget-b.used {
		return false
	}
	b.used += n
	return true
}

// Symbols returns the symbols of a module in ascending order of addresses, those of one address in the order of the module's
// table, but with those that assemblers make last. Size is the distance to the next other address, or to the end of the region. They
// are read once.
func (l *List) Symbols(m *Module) ([]kallsyms.Symbol, error) {
	m.once.Do(func() { m.symbols, m.err = l.readSymbols(m) })
	return m.symbols, m.err
}

// Find returns the module whose memory has an address, and the symbol that covers it: the one that the kernel prints
// (find_kallsyms_symbol in kernel/module/kallsyms.c). It reports false if there is no such module, or no such symbol.
func (l *List) Find(a mem.VirtAddr) (*Module, kallsyms.Symbol, bool) {
	m, ok := l.At(a)
	if !ok {
		return nil, kallsyms.Symbol{}, false
	}
	list, err := l.Symbols(m)
	if err != nil {
		return m, kallsyms.Symbol{}, false
	}
	next, _ := slices.BinarySearchFunc(m.printed, a, func(i int, a mem.VirtAddr) int {
		if list[i].Addr <= a {
			return -1
		}
		return 1
	})
	if next == 0 {
		return m, kallsyms.Symbol{}, false
	}
	s := list[m.printed[next-1]]
	return m, s, uint64(a-s.Addr) < s.Size
}

// mapping reports whether a name is one that assemblers make, which the kernel never prints (is_mapping_symbol in
// include/linux/module_symbol.h).
func mapping(name string) bool {
	return strings.HasPrefix(name, "$") || strings.HasPrefix(name, ".L") || strings.HasPrefix(name, "L0")
}

// symbolBytes is the size of an Elf64_Sym: u32 st_name; u8 st_info, st_other; u16 st_shndx; u64 st_value, st_size.
const symbolBytes = 24

// readSymbols reads the tables of struct mod_kallsyms.
func (l *List) readSymbols(m *Module) ([]kallsyms.Symbol, error) {
	if l.views.kallsyms == nil || m.kallsyms == 0 {
		return nil, fmt.Errorf("%s: %w", m.Name, ErrNoSymbols)
	}
	tables, err := l.views.kallsyms.Read(l.k, m.kallsyms)
	if err != nil {
		return nil, fmt.Errorf("symbols of module %q: %w", m.Name, err)
	}
	n := tables.Uint("num_symtab")
	if n > maxSymbols || !l.budget.take(int(n)*(symbolCost+symbolBytes)) {
		return nil, fmt.Errorf("module %q has %d symbols, more than there is room for", m.Name, n)
	}
	table := make([]byte, n*symbolBytes)
	if err := l.k.ReadVirt(table, tables.Pointer("symtab")); err != nil {
		return nil, fmt.Errorf("symbols of module %q: %w", m.Name, err)
	}
	names, err := l.readNames(m, table, tables.Pointer("strtab"))
	if err != nil {
		return nil, fmt.Errorf("names of symbols of module %q: %w", m.Name, err)
	}
	// typetab came with 5.2 (1c7651f43777). Before, the type is in st_info.
	kinds := make([]byte, n)
	for i := range kinds {
		kinds[i] = table[i*symbolBytes+4]
	}
	if l.views.kallsyms.Has("typetab") {
		if err := l.k.ReadVirt(kinds, tables.Pointer("typetab")); err != nil {
			return nil, fmt.Errorf("types of symbols of module %q: %w", m.Name, err)
		}
	}
	return m.sorted(table, names, kinds), nil
}

// readNames reads the names that a table of symbols refers to. Nothing says how long they are, but they lie in one region.
func (l *List) readNames(m *Module, table []byte, at mem.VirtAddr) (string, error) {
	var last uint64
	for i := 0; i < len(table); i += symbolBytes {
		last = max(last, uint64(binary.LittleEndian.Uint32(table[i:])))
	}
	i := slices.IndexFunc(m.Regions, func(r Region) bool { return r.contains(at) })
	if i < 0 {
		return "", fmt.Errorf("they are at %v, not in the module", at)
	}
	size := min(last+maxName, m.Regions[i].Size-uint64(at-m.Regions[i].Base))
	if size > maxNames || !l.budget.take(2*int(size)) { // read into bytes, and then made a string
		return "", fmt.Errorf("they have %d bytes, more than there is room for", size)
	}
	b := make([]byte, size)
	err := l.k.ReadVirt(b, at)
	return string(b), err
}

// sorted makes symbols of what was read. It leaves out what has no name or no place.
func (m *Module) sorted(table []byte, names string, kinds []byte) []kallsyms.Symbol {
	list := make([]kallsyms.Symbol, 0, len(kinds))
	for i := range kinds {
		entry := table[i*symbolBytes:][:symbolBytes]
		name := nameAt(names, uint64(binary.LittleEndian.Uint32(entry)))
		const undefined = 0 // SHN_UNDEF
		if name == "" || binary.LittleEndian.Uint16(entry[6:]) == undefined {
			continue
		}
		list = append(list, kallsyms.Symbol{Name: name, Addr: mem.VirtAddr(binary.LittleEndian.Uint64(entry[8:])), Type: kinds[i]})
	}
	slices.SortStableFunc(list, inOrder)
	m.measure(list)
	return list
}

// inOrder compares symbols by address, those of one address by whether the kernel prints them.
func inOrder(a, b kallsyms.Symbol) int {
	if order := cmp.Compare(a.Addr, b.Addr); order != 0 || mapping(a.Name) == mapping(b.Name) {
		return order
	}
	if mapping(a.Name) {
		return 1
	}
	return -1
}

// nameAt returns the name at an offset, or nothing if there is none that ends.
func nameAt(names string, at uint64) string {
	if at >= uint64(len(names)) {
		return ""
	}
	rest := names[at:min(at+maxName, uint64(len(names)))]
	end := strings.IndexByte(rest, 0)
	return rest[:max(end, 0)]
}

// measure fills the sizes, and printed.
func (m *Module) measure(list []kallsyms.Symbol) {
	var next mem.VirtAddr // the lowest address above that has a name of people
	for i := len(list) - 1; i >= 0; i-- {
		s := &list[i]
		if r := slices.IndexFunc(m.Regions, func(r Region) bool { return r.contains(s.Addr) }); r >= 0 {
			end := m.Regions[r].Base + mem.VirtAddr(m.Regions[r].Size)
			if next > s.Addr {
				end = min(end, next)
			}
			s.Size = uint64(end - s.Addr)
		}
		if (i == 0 || list[i-1].Addr != s.Addr) && !mapping(s.Name) {
			next = s.Addr
			m.printed = append(m.printed, i)
		}
	}
	slices.Reverse(m.printed)
}
