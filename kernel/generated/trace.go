package generated

import (
	"fmt"

	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/mem"
)

// readFtrace reads the trampolines of the users of ftrace: create_trampoline in arch/x86/kernel/ftrace.c makes one for a user that
// alone traces some functions.
func (r *reader) readFtrace() error {
	list, ok := r.symbols.Address("ftrace_ops_list")
	if !ok {
		return nil
	}
	ops, err := r.view("ftrace_ops", "next", "trampoline", "trampoline_size")
	if err != nil || ops == nil {
		return err
	}
	first, err := r.k.ReadUint64(list)
	if err != nil {
		return fmt.Errorf("ftrace_ops_list: %w", err)
	}
	return r.follow("ftrace_ops_list", ops, "", "next", mem.VirtAddr(first), 0, func(rec types.Record) error {
		start := rec.Pointer("trampoline")
		r.add(Code{Name: "ftrace_trampoline", Module: "__builtin__ftrace", Start: start, End: start + rec.Pointer("trampoline_size")})
		return nil
	})
}

// readKprobes reads the pages of instructions that probes replaced, and of the code of optimized probes.
func (r *reader) readKprobes() error {
	for _, cache := range [][2]string{{"kprobe_insn_slots", "kprobe_insn_page"}, {"kprobe_optinsn_slots", "kprobe_optinsn_page"}} {
		if err := r.readSlots(cache[0], cache[1]); err != nil {
			return err
		}
	}
	return nil
}

// readSlots reads the pages of a struct kprobe_insn_cache, each of which has a struct kprobe_insn_page.
func (r *reader) readSlots(symbol, name string) error {
	at, ok := r.symbols.Address(symbol)
	if !ok {
		return nil
	}
	cache, err := r.view("kprobe_insn_cache", "pages.next")
	if err != nil || cache == nil {
		return err
	}
	page, err := r.view("kprobe_insn_page", "list.next", "insns")
	if err != nil || page == nil {
		return err
	}
	head, err := cache.Read(r.k, at)
	if err != nil {
		return fmt.Errorf("%s: %w", symbol, err)
	}
	return r.follow(symbol, page, "list.next", "list.next", head.Pointer("pages.next"), head.Addr("pages.next"), func(rec types.Record) error {
		start := rec.Pointer("insns")
		r.add(Code{Name: name, Module: "__builtin__kprobes", Start: start, End: start + 1<<r.k.PageShift()})
		return nil
	})
}
