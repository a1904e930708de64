package signature

import (
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
	"github.com/corehaul/corehaul/kernel/oops"
)

// OfStacks returns the signature of a crash by the stacks in memory, innermost function first, without guessed frames. panicked is that of
// the task that panicked. crashed is that of the task which hung or the CPU which stalled, if another one found out and panicked; it is
// empty if that is not known. The result is nil if the stacks do not say what crashed.
func OfStacks(panicked, crashed []Place) *Signature {
	c, below := reported(panicked)
	switch {
	case c == hungTask:
		below = crashed
	case c == stall && len(crashed) > 0:
		below = crashed
		if i := interruptOf(crashed); i >= 0 {
			below = crashed[i+1:]
		}
	case len(crashed) > 0:
		return nil // the panic is of another task than the crash
	}
	if c == fault && len(below) > 0 && below[0].Function == "" {
		c = jump
	}
	places := culprits(c, below)
	if len(places) == 0 && !c.placeless() {
		return nil
	}
	return newSignature(c, places)
}

// reported returns the class of a panic, by the function that called for it, and the stack below the code that reports.
func reported(stack []Place) (c class, below []Place) {
	i := skip(stack, 0, dies)
	if i == 0 || i == len(stack) { // nobody called panic()
		return "", nil
	}
	c = panicked
	name := oops.PlainName(stack[i].Function)
	for _, r := range reporters {
		if r.re.MatchString(name) {
			c = r.class
			break
		}
	}
	if c == stall {
		if at := interruptOf(stack); at >= 0 {
			return c, stack[at+1:]
		}
		return c, nil
	}
	return c, afterReporters(stack)
}

// afterReporters returns what of a stack lies below the code that reports.
func afterReporters(stack []Place) []Place { return stack[skip(stack, 0, reports):] }

// skip returns the first place from i on whose function does not satisfy is.
func skip(stack []Place, i int, is func(name string) bool) int {
	for i < len(stack) && stack[i].Function != "" && is(oops.PlainName(stack[i].Function)) {
		i++
	}
	return i
}

// interruptOf returns the first entry of an interrupt in a stack, -1 if there is none.
func interruptOf(stack []Place) int {
	return slices.IndexFunc(stack, func(p Place) bool { return interrupts.MatchString(oops.PlainName(p.Function)) })
}

// dies reports whether a function stops the machine, whatever the reason.
func dies(name string) bool { return dying.MatchString(name) }

// reports reports whether a function is part of a report, or what the processor enters for an exception.
func reports(name string) bool {
	return dies(name) || exceptions.MatchString(name) || slices.ContainsFunc(reporters, func(r reporter) bool { return r.re.MatchString(name) })
}

var (
	// dying are functions between a reporter and the capture kernel: kernel/panic.c, kernel/crash_core.c, arch/x86/kernel/dumpstack.c and
	// traps.c (do_trap), arch/arm64/kernel/traps.c (die, arm64_notify_die), lib/dump_stack.c.
	dying = names(`__crash_kexec`, `crash_kexec`, `machine_kexec`, `crash_setup_regs`, `crash_save_cpu`, `v?panic`, `nmi_panic(?:_self_stop)?`, `oops_end`, `die(?:_addr)?`, `__die(?:_body|_header)?`,
		`do_trap(?:_no_signal)?`, `do_error_trap`, `arm64_notify_die`, `arm64_force_sig_fault`, `dump_stack(?:_lvl|_print_info)?`, `__dump_stack`, `show_stack`, `dump_backtrace`, `show_regs`,
		`rewind_stack_(?:and_make_dead|do_exit)`, `notify_die`, `unwind_backtrace`)
	// exceptions are entries of exceptions: arch/x86/include/asm/idtentry.h, arch/x86/entry/entry_64.S before 5.8, arch/arm64/kernel/entry.S.
	exceptions = names(`asm_exc_\w+`, `asm_load_gs_index`, `page_fault|general_protection|double_fault|invalid_op|divide_error|stack_segment|int3|alignment_check|async_page_fault`,
		`error_entry`, `el1h_64_\w+`, `el1_(?:sync|error|da|undef|dbg|inv|abort|pc|brk64|breakpt|bti|gcs|fpac|sp_pc)\w*`, `fred_\w+|asm_fred_\w+`, `__bad_stack`)
	// interrupts are entries of the interrupts by which a watchdog looks: timers and NMIs.
	interrupts = names(`asm_sysvec_\w+`, `apic_timer_interrupt`, `asm_exc_nmi`, `end_repeat_nmi`, `nmi`, `el1h_64_(?:irq|fiq)`, `el1_(?:irq|fiq)`, `__irq_svc`)
)

// reporter is code that finds a crash and calls panic() or die().
type reporter struct {
	class class
	re    *lazyregexp.Regexp
}

// reporters are told by the function that calls panic() or die(), in all kernels from 5.4 to 7.3; what is inlined leaves its caller.
// Sources: drivers/tty/sysrq.c, mm/oom_kill.c, kernel/exit.c, kernel/watchdog.c, kernel/watchdog_buddy.c, kernel/rcu/tree_stall.h,
// kernel/hung_task.c, kernel/panic.c, arch/x86/kernel/nmi.c, arch/x86/kernel/cpu/mce/core.c, init/do_mounts.c, arch/x86/mm/fault.c,
// arch/x86/kernel/traps.c, arch/arm64/mm/fault.c, arch/arm64/kernel/traps.c and debug-monitors.c, lib/bug.c, mm/kasan/report.c.
var reporters = []reporter{
	{sysrq, names(`sysrq_handle_crash`)},
	{outOfMemory, names(`out_of_memory`, `check_panic_on_oom`, `oom_kill_process`)},
	{initKilled, names(`do_exit`, `make_task_dead`)},
	{stall, names(`watchdog_timer_fn`, `watchdog_overflow_callback`, `watchdog_hardlockup_check`, `watchdog_buddy_check_hardlockup`,
		`panic_on_rcu_stall`, `print_(?:other_)?cpu_stall`, `check_cpu_stall`, `rcu_pending`, `rcu_sched_clock_irq`, `rcu_check_gp_kthread_\w+`, `rcu_dump_cpu_stacks`, `sched_show_task`, `dump_cpu_task`,
		`(?:arch_trigger|nmi_trigger|trigger_single)_\w*backtrace`, `nmi_cpu_backtrace\w*`)},
	{hungTask, names(`check_hung_uninterruptible_tasks`, `check_hung_task`, `hung_task_\w+`, `watchdog`)},
	{stackCorruption, names(`__stack_chk_fail`)},
	{nmi, names(`unknown_nmi_error`, `default_do_nmi`, `nmi_handle`, `mem_parity_error`, `io_check_error`, `pci_serr_error`, `exc_nmi`, `do_nmi`)},
	{machineCheck, names(`mce_\w+`, `do_machine_check`, `exc_machine_check\w*`)},
	{rootFilesystem, names(`mount_(?:root\w*|block_root|nodev_root)`, `prepare_namespace`, `kernel_init\w*`)},
	{stackOverflow, names(`handle_stack_overflow`, `exc_double_fault`, `do_double_fault`, `panic_bad_stack`, `handle_bad_stack`)},
	{fault, names(`page_fault_oops`, `no_context`, `_*bad_area\w*`, `kernelmode_fixup_or_oops`, `do_(?:kern|user)_addr_fault`, `exc_page_fault`, `(?:__)?do_page_fault`, `exc_general_protection`,
		`do_general_protection`, `gp_(?:user_)?\w*fixup\w*`, `exc_stack_segment`, `do_stack_segment`, `die_kernel_fault`, `__do_kernel_fault`, `do_bad_area`, `do_translation_fault`, `do_mem_abort`, `do_tag_check_fault`)},
	{divide, names(`exc_divide_error`, `do_divide_error`)},
	{bug, names(`__warn\w*`, `warn_slowpath_\w+`, `check_panic_on_warn`, `report_bug\w*`, `__report_bug`, `handle_bug`, `fixup_bug`, `exc_invalid_op`, `do_invalid_op`, `bug_(?:brk_)?handler`, `brk_handler`, `call_(?:break_hook|el1_break_hook)`,
		`do_debug_exception`, `do_el1_brk64`, `do_undefinstr`, `do_el1_undef`)},
	{class(oops.Int3), names(`exc_int3`, `do_int3\w*`)},
	{class(oops.Alignment), names(`exc_alignment_check`, `do_alignment_check`, `do_sp_pc_abort`)},
	{class(oops.CFI), names(`exc_control_protection`, `do_el1_(?:bti|fpac|gcs)`)},
	{class(oops.ExternalAbort), names(`do_serror`, `arm64_serror_panic`, `do_sea`)},
	{class(oops.KASAN), names(`end_report`, `kasan_report\w*`, `__kasan_report`, `__asan_\w+`)},
	{class(oops.KFENCE), names(`kfence_report_error`)},
	{class(oops.UBSAN), names(`ubsan_epilogue`, `__ubsan_\w+`)},
}

// names matches any of the names as a whole.
func names(list ...string) *lazyregexp.Regexp {
	return lazyregexp.New(`^(?:` + strings.Join(list, "|") + `)$`)
}
