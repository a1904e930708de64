// Package generated knows the code that a kernel made at run time: BPF programs and their trampolines, trampolines of ftrace, and
// the pages into which kprobes copy instructions.
//
// It has the names that /proc/kallsyms gives them. It finds them through the kernel's own lists, by symbols and members of
// types and not by version: bpf_kallsyms (kernel/bpf/core.c), ftrace_ops_list (kernel/trace/ftrace.c), kprobe_insn_slots and
// kprobe_optinsn_slots (kernel/kprobes.c). BTF is needed, and symbols of data (CONFIG_KALLSYMS_ALL): a kernel without them
// has no such code here. Programs that classic BPF was turned into are on no list.
//
// Memory is hostile input. A list that loops or cannot be read gives what was found up to there, with an error that says where.
// The number of pieces is bounded. A List is read-only after Load and safe for concurrent use.
package generated

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/mem"
)

// Code is a piece of generated code.
type Code struct {
	Name  string       // may hold any bytes but NUL
	Start mem.VirtAddr // of its first byte
	End   mem.VirtAddr // behind its last byte
	// Module is what /proc/kallsyms has in the place of a module. It is empty for BPF, as in the kernel's call traces.
	Module string
	bpf    bool
}

// List has the generated code of one kernel.
type List struct {
	code []Code // by address
}

// maxCode bounds the pieces of one list. A machine with many containers has some thousand BPF programs.
const maxCode = 1 << 14

// Load reads the lists. With an error, the List has what could be read nevertheless: it is never nil.
func Load(k *kernel.Kernel, symbols types.Symbols, known *types.Types) (*List, error) {
	r := &reader{k: k, symbols: symbols, known: known}
	err := errors.Join(r.readBPF(), r.readFtrace(), r.readKprobes())
	slices.SortStableFunc(r.code, func(a, b Code) int { return cmp.Compare(a.Start, b.Start) })
	return &List{code: r.code}, err
}

// All returns all pieces by address. Callers must not change them.
func (l *List) All() []Code { return l.code }

// at returns the piece that has an address.
func (l *List) at(a mem.VirtAddr) (Code, bool) {
	next, _ := slices.BinarySearchFunc(l.code, a, func(c Code, a mem.VirtAddr) int {
		if c.Start <= a {
			return -1
		}
		return 1
	})
	if next == 0 || a >= l.code[next-1].End {
		return Code{}, false
	}
	return l.code[next-1], true
}

// Find returns the piece that has an address as a symbol, and its Module.
func (l *List) Find(a mem.VirtAddr) (s kallsyms.Symbol, module string, ok bool) {
	c, ok := l.at(a)
	if !ok {
		return s, "", false
	}
	return kallsyms.Symbol{Name: c.Name, Addr: c.Start, Size: uint64(c.End - c.Start), Type: 't'}, c.Module, true
}

// Contains reports whether an address is in generated code.
func (l *List) Contains(a mem.VirtAddr) bool { _, ok := l.at(a); return ok }

// KeepsFramePointer reports whether an address is in code that begins with "push %rbp; mov %rsp,%rbp" on x86_64: BPF programs and
// trampolines do (emit_prologue and __arch_prepare_bpf_trampoline in arch/x86/net/bpf_jit_comp.c).
func (l *List) KeepsFramePointer(a mem.VirtAddr) bool { c, ok := l.at(a); return ok && c.bpf }

// reader reads the lists.
type reader struct {
	k       *kernel.Kernel
	symbols types.Symbols
	known   *types.Types
	code    []Code
}

// add takes a piece, if its bounds can be those of code.
func (r *reader) add(c Code) {
	if c.Name != "" && c.Start != 0 && c.Start < c.End {
		r.code = append(r.code, c)
	}
}

// view is View of the types, without a structure or member that a kernel lacks: then it is nil.
func (r *reader) view(structure string, members ...string) (*types.View, error) {
	v, err := r.known.View(structure, members)
	if errors.Is(err, types.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

// follow reads the structures of a list whose first node, and after it each one's member link, points to the next: to its
// start, or where the list links its nodes, to its member node. The list ends at the address end, or at 0.
func (r *reader) follow(what string, v *types.View, node, link string, first, end mem.VirtAddr, take func(types.Record) error) error {
	seen := map[mem.VirtAddr]bool{}
	for at := first; at != end && at != 0; {
		if seen[at] || len(seen) >= maxCode {
			return fmt.Errorf("%s: the list leads to %v, which was there before or is one of too many", what, at)
		}
		seen[at] = true
		rec, err := v.Read(r.k, at-mem.VirtAddr(v.Field(node).Offset))
		if err == nil {
			err = take(rec)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		at = rec.Pointer(link)
	}
	return nil
}
