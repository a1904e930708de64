package modules

import (
	"encoding/binary"
	"strings"

	"github.com/corehaul/corehaul/mem"
)

// maxSearch bounds the bytes that are searched for the head of the list. The data of Debian's kernels has 4 MiB without those
// that are zero at the start.
const maxSearch = 32 << 20

// maxCandidates bounds what is read as a module: entries of lists in the kernel's data, as each event of the tracer is one.
const maxCandidates = 16 << 10

// nearCode is how far modules can be from the kernel's code, for their branches and data to reach it (MODULES_VADDR of x86_64,
// module_direct_base and module_plt_base of arm64).
const nearCode = 2 << 30

// searchHead finds the head of the list of modules in kernels whose symbols are those of code alone (no CONFIG_KALLSYMS_ALL),
// in the data of the kernel image, which follows its code for initialization: a list_head whose first entry is in a module,
// and points back.
func (l *List) searchHead() (mem.VirtAddr, bool) {
	from, ok := l.symbols.Address("_einittext")
	if !ok {
		return 0, false
	}
	page := make([]byte, 1<<l.k.PageShift())
	pageLen := mem.VirtAddr(len(page))
	start := from &^ (pageLen - 1)
	candidates := 0
	for at := start; at < start+maxSearch; at += pageLen {
		if l.k.ReadVirt(page, at) != nil {
			continue
		}
		for i := 0; i < len(page); i += 8 {
			head, next := at+mem.VirtAddr(i), mem.VirtAddr(binary.LittleEndian.Uint64(page[i:]))
			if next%8 != 0 || next-from >= nearCode && from-next >= nearCode || !l.pointsBack(head, next) {
				continue
			}
			if candidates++; candidates > maxCandidates {
				return 0, false
			}
			if l.isHead(head, next) {
				return head, true
			}
		}
	}
	return 0, false
}

// pointsBack reports whether next is an entry of a list that follows head.
func (l *List) pointsBack(head, next mem.VirtAddr) bool {
	back, err := l.k.ReadUint64(next + 8)
	return err == nil && mem.VirtAddr(back) == head && next != head
}

// isHead reports whether the list at an address has its first entry in a module.
func (l *List) isHead(head, next mem.VirtAddr) bool {
	module := next - mem.VirtAddr(l.views.module.Field("list").Offset)
	rec, err := l.views.module.Read(l.k, module)
	if err != nil {
		return false
	}
	// A struct module lies in the module's own memory, which is no part of the kernel image, and begins with a page.
	m, err := l.decode(rec, module)
	return err == nil && m.contains(module) && !m.contains(head) && uint64(m.Base())%(1<<l.k.PageShift()) == 0 && isName(m.Name)
}

// isName reports whether a name has only characters that names of modules have.
func isName(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}
