// Package kallsyms reads the symbol table of the kernel image (kallsyms) from the memory of a crashed kernel.
//
// scripts/kallsyms.c in the kernel tree writes the table, kernel/kallsyms.c reads it. Load finds it through VMCOREINFO
// (since 6.0), and in older kernels by its contents. It reads every form since 4.6: addresses that are absolute,
// relative to a base, absolute for per-CPU symbols only, or relative to their own place (7.0); lengths of names of one
// byte, or of up to two (6.1). Nothing is decided by the version: the addresses must agree with VMCOREINFO, the
// names with the table's own markers. Otherwise Load refuses the table and says what disagrees. Pages that cannot be read
// cost the symbols that they have (ErrIncomplete).
//
// The table has the symbols of the kernel image only: none of modules, BPF programs or ftrace trampolines.
//
// Memory is hostile input: counts and sizes are limited before they decide an allocation or a loop. A Table keeps its
// names compressed: about 4 MiB for 150,000 symbols. It is read-only after Load and safe for concurrent use.
package kallsyms

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// Errors of Load.
var (
	// ErrNotFound says that the kernel image has no symbol table that this package knows.
	ErrNotFound = errors.New("kallsyms not found")
	// ErrCorrupt says that the parts of the table disagree among themselves or with VMCOREINFO.
	ErrCorrupt = errors.New("kallsyms is damaged or of an unknown form")
)

// Symbol is a symbol of the kernel image.
type Symbol struct {
	Name string
	Addr mem.VirtAddr
	Size uint64 // bytes up to the next symbol that lies elsewhere
	Type byte   // as nm(1) has it: 't' or 'T' for code, and so on
}

// Table is the symbol table of a kernel image. Make one with Load.
type Table struct {
	names     *names
	index     index
	addresses []uint64     // ascending, one for each name
	lost      kernel.Holes // indices of addresses that are lost: they have the one before them
	image     []addressRange
}

// addressRange is a half-open range of virtual addresses.
type addressRange struct{ start, end uint64 }

// Load reads the symbol table of k. Errors match ErrNotFound or ErrCorrupt, or say what memory could not be read. With one that
// matches ErrIncomplete, there is a Table that lacks some symbols.
func Load(k *kernel.Kernel) (*Table, error) {
	at, err := locate(k)
	if err != nil {
		return nil, err
	}
	t := &Table{}
	if t.names, err = readNames(k, at); err != nil {
		return nil, err
	}
	t.index = newIndex(t.names)
	if err := t.readAddresses(k, at); err != nil {
		return nil, err
	}
	t.image = t.ranges()
	return t, t.incomplete()
}

// Address returns the address of a symbol; of several with one name the lowest. It reports false if the address of that is lost: the next
// one is another's. A lost name is not known to be one of several, so where one is lost, Address may give the next: of the
// symbols that the project reads, kernels have one each. For per-CPU symbols of x86_64 before
// 6.15 this is the offset in the per-CPU area.
func (t *Table) Address(name string) (mem.VirtAddr, bool) {
	for i := range t.index.find(t.names, name) {
		return mem.VirtAddr(t.addresses[i]), !t.lost.Has(i, i+1)
	}
	return 0, false
}

// Find returns the symbol that covers address a. If several symbols have its address, it is the one that the kernel
// prints: the first in the table (get_symbol_pos in kernel/kallsyms.c). Addresses outside the kernel image have none, nor do
// those whose symbol may be one that is lost.
func (t *Table) Find(a mem.VirtAddr) (Symbol, bool) {
	inside := slices.IndexFunc(t.image, func(r addressRange) bool { return r.start <= uint64(a) && uint64(a) < r.end })
	if inside < 0 {
		return Symbol{}, false
	}
	next, _ := slices.BinarySearchFunc(t.addresses, uint64(a), func(have, want uint64) int {
		if have <= want {
			return -1
		}
		return 1
	})
	if next == 0 || t.lost.Has(next-1, next) {
		return Symbol{}, false
	}
	start, end := t.addresses[next-1], t.image[inside].end
	if next < len(t.addresses) {
		end = min(end, t.addresses[next])
	}
	first, _ := slices.BinarySearch(t.addresses, start)
	kind, name, ok := t.names.symbol(first)
	if !ok {
		return Symbol{}, false
	}
	return Symbol{Name: name, Addr: mem.VirtAddr(start), Size: end - start, Type: kind}, true
}

// ranges returns where the kernel looks symbols up (is_ksym_addr in kernel/kallsyms.c): in the whole image, or with a
// table of code alone (no CONFIG_KALLSYMS_ALL) in the code.
func (t *Table) ranges() []addressRange {
	whole := t.between("_stext", "_end")
	if whole.end == 0 && whole.start != 0 && t.names.lost+len(t.lost) > 0 && t.hasData() { // _end is lost
		whole.end = t.addresses[len(t.addresses)-1]
	}
	if whole.start < whole.end {
		return []addressRange{whole}
	}
	return []addressRange{t.between("_stext", "_etext"), t.between("_sinittext", "_einittext")}
}

func (t *Table) between(first, last string) addressRange {
	start, _ := t.Address(first)
	end, _ := t.Address(last)
	return addressRange{uint64(start), uint64(end)}
}

// hasData reports whether the table has symbols of data, and not of code alone.
func (t *Table) hasData() bool {
	for i := range t.names.starts {
		if kind, _, _ := t.names.symbol(i); strings.IndexByte("bBdDrR", kind) >= 0 {
			return true
		}
	}
	return false
}

// corrupt returns an error that matches ErrCorrupt.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// alignUp returns the next multiple of align from n on.
func alignUp[T ~uint64 | ~int](n, align T) T { return (n + align - 1) / align * align }

// readTable reads count values of a table. what names it in errors.
func readTable(k *kernel.Kernel, what string, va mem.VirtAddr, count, width int) ([]byte, error) {
	b := make([]byte, count*width)
	if err := k.ReadVirt(b, va); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return b, nil
}

// firstUnsorted returns the index of the first value that is less than the one before it.
func firstUnsorted[T cmp.Ordered](values []T) (int, bool) {
	for i := 1; i < len(values); i++ {
		if values[i] < values[i-1] {
			return i, true
		}
	}
	return 0, false
}
