package signature_test

import (
	"debug/elf"
	"fmt"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/kernel/signature"
)

// stack reads "foo bar[mod] -": functions, innermost first; "-" has no name.
func stack(text string) (list []signature.Place) {
	for word := range strings.FieldsSeq(text) {
		function, module, _ := strings.Cut(strings.TrimSuffix(word, "]"), "[")
		list = append(list, signature.Place{Function: strings.TrimPrefix(function, "-"), Module: module})
	}
	return list
}

// TestOfStacks has the stacks that memory has of each class, on several kernels.
func TestOfStacks(t *testing.T) {
	const syscall = " vfs_write ksys_write do_syscall_64 entry_SYSCALL_64_after_hwframe"
	for _, tc := range []struct{ name, panicked, crashed, want string }{
		{"sysrq", "__crash_kexec panic sysrq_handle_crash __handle_sysrq.cold write_sysrq_trigger proc_reg_write" + syscall, "", "sysrq"},
		{"sysrq by a key", "__crash_kexec vpanic panic sysrq_handle_crash __handle_sysrq sysrq_filter input_to_handler", "", "sysrq"},
		{"page fault, 5.10", "__crash_kexec crash_kexec oops_end no_context.constprop.0 __bad_area_nosemaphore exc_page_fault asm_exc_page_fault foo[m] bar[m] baz" + syscall, "", "fault < foo [m] < bar [m] < baz"},
		{"page fault, 6.1", "machine_kexec __crash_kexec crash_kexec oops_end page_fault_oops exc_page_fault asm_exc_page_fault foo[m] bar[m] baz" + syscall, "", "fault < foo [m] < bar [m] < baz"},
		{"general protection", "__crash_kexec crash_kexec oops_end exc_general_protection asm_exc_general_protection foo[m] bar[m] baz" + syscall, "", "fault < foo [m] < bar [m] < baz"},
		{"page fault in an interrupt", "__crash_kexec panic oops_end page_fault_oops exc_page_fault asm_exc_page_fault foo[m] isr[m] __handle_irq_event_percpu handle_irq_event", "", "fault < foo [m] < isr [m]"},
		{"page fault, arm64", "machine_kexec __crash_kexec crash_kexec die die_kernel_fault __do_kernel_fault do_page_fault do_translation_fault do_mem_abort el1_abort el1h_64_sync_handler el1h_64_sync foo[m] bar[m] vfs_write ksys_write __arm64_sys_write invoke_syscall", "", "fault < foo [m] < bar [m]"},
		{"page fault in a helper", "__crash_kexec crash_kexec oops_end page_fault_oops exc_page_fault asm_exc_page_fault __memcpy foo[m]" + syscall, "", "fault < foo [m]"},
		{"call through null", "__crash_kexec crash_kexec oops_end page_fault_oops exc_page_fault asm_exc_page_fault - foo[m] bar[m]" + syscall, "", "jump < foo [m] < bar [m]"},
		{"BUG", "__crash_kexec crash_kexec oops_end do_trap do_error_trap exc_invalid_op asm_exc_invalid_op foo[m] bar[m]" + syscall, "", "bug < foo [m] < bar [m]"},
		{"divide error", "__crash_kexec crash_kexec oops_end do_trap do_error_trap exc_divide_error asm_exc_divide_error foo[m] bar[m]" + syscall, "", "divide-error < foo [m] < bar [m]"},
		{"WARN, 5.10", "__crash_kexec panic __warn.cold report_bug handle_bug exc_invalid_op asm_exc_invalid_op foo[m] bar[m]" + syscall, "", "bug < foo [m] < bar [m]"},
		{"WARN, 7.3", "__crash_kexec vpanic panic check_panic_on_warn __warn.cold __report_bug report_bug handle_bug exc_invalid_op asm_exc_invalid_op foo[m] bar[m]" + syscall, "", "bug < foo [m] < bar [m]"},
		{"refcount", "__crash_kexec panic check_panic_on_warn __warn report_bug handle_bug exc_invalid_op asm_exc_invalid_op refcount_warn_saturate foo[m]" + syscall, "", "bug < foo [m]"},
		{"usercopy", "__crash_kexec crash_kexec oops_end do_trap do_error_trap exc_invalid_op asm_exc_invalid_op usercopy_abort __check_object_size.part.0 foo[m]" + syscall, "", "bug < foo [m]"},
		{"a driver's panic", "__crash_kexec panic my_panic[m] foo[m]" + syscall, "", "panic < my_panic [m] < foo [m]"},
		{"soft lockup", "__crash_kexec panic watchdog_timer_fn.cold __hrtimer_run_queues hrtimer_interrupt sysvec_apic_timer_interrupt asm_sysvec_apic_timer_interrupt inner[m] loop[m] work[m]" + syscall, "", "stall < work [m] < loop [m]"},
		{"soft lockup, interrupted further out", "__crash_kexec panic watchdog_timer_fn __hrtimer_run_queues asm_sysvec_apic_timer_interrupt loop[m] work[m]" + syscall, "", "stall < work [m] < loop [m]"},
		{"hard lockup", "__crash_kexec panic nmi_panic watchdog_overflow_callback __perf_event_overflow perf_event_nmi_handler nmi_handle default_do_nmi exc_nmi end_repeat_nmi loop[m] work[m]" + syscall, "", "stall < work [m] < loop [m]"},
		{"RCU, another CPU", "__crash_kexec panic rcu_sched_clock_irq.cold update_process_times asm_sysvec_apic_timer_interrupt do_idle", "crash_nmi_callback nmi_handle exc_nmi asm_exc_nmi loop[m] work[m]" + syscall, "stall < work [m] < loop [m]"},
		{"NMI", "__crash_kexec panic nmi_panic unknown_nmi_error default_do_nmi exc_nmi asm_exc_nmi spin[m]" + syscall, "", "nmi"},
		{"hung task", "__crash_kexec panic check_hung_uninterruptible_tasks.cold watchdog kthread ret_from_fork", "__schedule schedule schedule_timeout wait_for_completion foo[m] bar[m]" + syscall, "hung-task < foo [m] < bar [m]"},
		{"hung task, which one is not known", "__crash_kexec panic watchdog kthread ret_from_fork", "", "none"},
		{"hung task, RTNL", "__crash_kexec panic watchdog kthread ret_from_fork", "__schedule schedule __mutex_lock.constprop.0 rtnl_lock foo[m]", "hung-task < rtnl_lock"},
		{"OOM", "__crash_kexec panic out_of_memory.cold __alloc_pages_slowpath.constprop.0 foo[m]", "", "oom"},
		{"init", "__crash_kexec panic do_exit.cold do_group_exit __x64_sys_exit_group do_syscall_64", "", "init-killed"},
		{"stack protector", "__crash_kexec panic __stack_chk_fail smash[m] junk", "", "stack-corruption < smash [m]"},
		{"stack overflow", "__crash_kexec panic oops_end die handle_stack_overflow exc_double_fault asm_exc_double_fault" + strings.Repeat(" b[m] a[m]", 9) + " foo[m]" + syscall, "", "stack-overflow < a [m] < b [m]"},
		{"stack overflow, arm64", "__crash_kexec panic nmi_panic panic_bad_stack handle_bad_stack __bad_stack" + strings.Repeat(" a[m] b[m]", 9), "", "stack-overflow < a [m] < b [m]"},
		{"a task that did not panic", "foo bar", "", "none"},
		{"nothing", "", "", "none"},
		{"no more than the panic", "__crash_kexec panic", "", "none"},
		{"another task's crash", "__crash_kexec crash_kexec oops_end page_fault_oops exc_page_fault asm_exc_page_fault foo[m]", "__schedule schedule bar", "none"},
		{"a BPF program", "__crash_kexec panic bpf_prog_0123456789abcdef_mine foo" + syscall, "", "panic < bpf_prog_mine < foo"},
	} {
		if got := words(signature.OfStacks(stack(tc.panicked), stack(tc.crashed))); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestLikeTheLog takes the trace that panic() printed for the stack in memory, as far as a log has one: both have one signature.
func TestLikeTheLog(t *testing.T) {
	compared := 0
	for name, log := range corpus(t) {
		r, err := oops.Read(strings.NewReader(log))
		if err != nil || !strings.HasPrefix(name, "real-") || strings.Contains(name, "arm64") { // where the kernel prints the function behind the caller of panic()
			continue
		}
		for i := range r.Traces {
			var list []signature.Place
			for _, l := range r.Traces[i].Places() {
				list = append(list, signature.Place{Function: l.Function, Module: l.Module})
			}
			if memory := signature.OfStacks(list, nil); memory != nil {
				compared++
				if log := signature.OfLog(r); memory.ID != log.ID || fmt.Sprint(memory.Frames) != fmt.Sprint(log.Frames) {
					t.Errorf("%s, trace %d: %s, and the log %s", name, i, words(memory), words(log))
				}
			}
		}
	}
	if compared < 5 {
		t.Errorf("compared %d traces", compared)
	}
}

// TestOfFault has stacks that begin where an exception was.
func TestOfFault(t *testing.T) {
	for _, tc := range []struct {
		name    string
		machine elf.Machine
		code    string
		stack   string
		want    string
	}{
		{"a load", elf.EM_X86_64, "\x48\x8b\x00", "foo[m] bar[m] vfs_write", "fault < foo [m] < bar [m]"},
		{"an instruction that cannot be read", elf.EM_X86_64, "", "foo[m] bar[m] vfs_write", "fault < foo [m] < bar [m]"},
		{"UD2", elf.EM_X86_64, "\x0f\x0b", "foo[m]", "bug < foo [m]"},
		{"UD1 of UBSAN", elf.EM_X86_64, "\x67\x0f\xb9\x40\x00", "foo[m]", "bug < foo [m]"},
		{"UDB", elf.EM_X86_64, "\xd6\x00", "foo[m]", "bug < foo [m]"},
		{"DIV", elf.EM_X86_64, "\xf7\xf1", "foo[m]", "divide-error < foo [m]"},
		{"IDIV of 64 bits", elf.EM_X86_64, "\x48\xf7\xf9", "foo[m]", "divide-error < foo [m]"},
		{"NOT", elf.EM_X86_64, "\xf7\xd1", "foo[m]", "fault < foo [m]"},
		{"prefixes alone", elf.EM_X86_64, "\x66\x66\x48", "foo[m]", "fault < foo [m]"},
		{"BRK", elf.EM_AARCH64, "\x00\x00\x21\xd4", "foo[m]", "bug < foo [m]"},
		{"LDR", elf.EM_AARCH64, "\x00\x00\x40\xf9", "foo[m]", "fault < foo [m]"},
		{"code without a name", elf.EM_X86_64, "\x0f\x0b", "- foo[m]", "jump < foo [m]"},
		{"a recursion", elf.EM_X86_64, "\x50", strings.Repeat("a[m] ", 70) + "foo[m]", "stack-overflow < a [m]"},
		{"no name at all", elf.EM_X86_64, "\x50", "- -", "none"},
		{"nothing", elf.EM_X86_64, "\x50", "", "none"},
	} {
		if got := words(signature.OfFault(stack(tc.stack), tc.machine, []byte(tc.code))); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}
