package oops

import (
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// helpers are functions that are not blamed: they report, or so many callers share them that a fault in them is the caller's.
// A name is a helper if it contains one of these words. ^ and $ are the ends of the name. Reports of syzbot skip the same
// functions, with few exceptions (see the package's documentation); its titles are well known, so this list follows them.
var helpers = lazyregexp.New(strings.Join([]string{
	// who reports: panic, WARN and BUG, traps, lockdep, sanitizers and their hooks
	`panic|invalid_op$|report_bug|fixup_bug|do_error|do_trap|_trap$|__warn|warn_(?:slowpath|alloc|bogus)|print_(?:report|tainted|unlock|usage_bug)`,
	`(?:show|dump|walk)_stack|^(?:__)?show_regs$|^show_trace_log_lvl$|^sched_show_task$|^show_state_filter$|dump_backtrace|^unwind_backtrace$|print_address_description|get_taint$|assertfail|__fortify_report|imbalance_bug`,
	`kasan|hwasan|kmsan|__asan|__msan|__sanitizer|kcsan_setup_watchpoint|check_memory_region|read_word_at_a_time|_once_.*nocheck`,
	`^nmi_(?:cpu_backtrace|trigger_cpumask_backtrace)|^arch_trigger_cpumask_backtrace`,
	`lockdep|lock_(?:acquire|release|class)|mark_lock|(?:mark|reacquire)_held_locks|perf_trace|(?:trace|lockdep)_(?:hard|soft)irq`,
	`arch_stack_walk|stack_trace_(?:save|consume_entry)|debug_object|(?:timer|work)_is_static_object|ref_tracker`,
	`do_(?:kernel|translation)_fault|do_mem_abort|^el1_abort$|^el1h_64_sync|^el1_(?:dbg|sync)|(?:bug|brk)_handler|do_debug_exception|^(?:x64|x32|ia32)_sys_call$|program_check_(?:exception|common)`,
	`printk|va_format|dev_(?:info|notice|warn|err|alert|crit|emerg)|hex_dump|^(?:restricted_)?pointer$|freepointer|snprintf|scnprintf|k?v?asprintf`,
	// locks, reference counts, atomics
	`(?:raw_)?(?:spin|read|write)_(?:lock|trylock|unlock)|raw_spin_rq|^down$|down_(?:read|write|trylock)|up_(?:read|write)`,
	`^_*(?:rt_)?mutex_|osq_(?:lock|unlock)|owner_on_cpu|bh_(?:enable|disable)|seqprop_assert|lock_timer_base|^(?:un)?lock_page`,
	`^refcount_|^kref_|atomic(?:64)?_(?:dec|inc|read|set|or|xor|and|add|sub|fetch|xchg|cmpxchg|try)|(?:set|clear|change|test)_bit`,
	`__wake_up|finish_wait|wait_for_completion|^complete$|might_(?:fault|sleep)|__might_resched`,
	// memory: allocators, copies, strings, lists, trees
	`k?v?[mzc]alloc|krealloc|alloc_page|alloc_frozen_pages|kmem_cache|allocate_slab|slab_|check_(?:heap_)?object|^kv?free$|kfree_skb`,
	`mem(?:cpy|cmp|set|chr|move|dup)|str(?:n?cmp|[ln]?cpy|scpy|n?len|n?str|chr|n?dup)|string|__phys_addr`,
	`(?:put|get)_user|copy_(?:to|from)_(?:user|iter)|copy_(?:page|folio)_(?:to|from)_iter|^copy(?:in|out)$|extract_(?:user|iter)_to_sg`,
	`list_(?:add|del|replace|move|splice)|^_*rb_|^klist_|xas_(?:start|load|find)|rhashtable_lookup|ida_free`,
	`folio_(?:alloc|unlock)|filemap_(?:alloc|get)_folio|(?:find_or_create|pagecache_get|read_cache)_page|do_read_cache_folio|grab_cache_page_write_begin|find_lock_entries|truncate_inode_pages_range|truncate_cleanup_folio|^ifs_free$`,
	`(?:read|write)[bwlq]$|logic_(?:in|out)|^crc\d|crc_itu_t|_indirect_thunk_`,
	// subsystems whose callers do wrong: workqueues, timers, kobjects, devices, inodes, USB
	`(?:flush|cancel|queue|insert|queue_delayed)_work|cancel_work_sync|__cancel_work_timer|try_to_grab_pending|(?:flush|drain|destroy)_workqueue`,
	`del_timer|__mod_timer|__timer_delete_sync|sk_stop_timer_sync|cleanup_srcu_struct|kthread_stop`,
	`kobject_|add_uevent_var|device_(?:add|del|unregister|destroy|release|remove_file|for_each_child)|get_device_parent|^put_device$|devres_release_all|sysfs_remove`,
	`hwrng_unregister|i2c_del_adapter|__unregister_client|rollback_registered|unregister_netdev|tty_unregister_device`,
	`^iput$|^iput_final$|^ihold$|drop_nlink|dput`,
	`dummy_urb_enqueue|usb_(?:kill_urb|kill_anchored_urbs|control_msg|hcd_submit_urb|submit_urb)`,
}, "|"))

// isHelper reports whether a function is not blamed.
func isHelper(name string) bool { return helpers.MatchString(name) }

// IsHelper reports whether a function, with or without suffixes of the compiler, is not blamed for a crash in it: it reports, or so many
// callers share it that a fault in it is the caller's.
func IsHelper(function string) bool { return isHelper(baseName(function)) }

// IsWait reports whether a function waits for its caller, so that it is not blamed for a task that hangs in it.
func IsWait(function string) bool { return waits.MatchString(baseName(function)) }

// CommonWait returns the name of a wait that many callers have for one cause, so that they say nothing: the lock of the network
// configuration, a grace period of RCU. It is "" for all other functions.
func CommonWait(function string) string {
	switch name := baseName(function); {
	case strings.Contains(name, "rtnl_lock"):
		return name
	case synchronizes.MatchString(name):
		return "synchronize_rcu"
	}
	return ""
}

var (
	synchronizes = lazyregexp.New(`synchronize_(?:rcu|srcu|net|sched)`)
	waits        = lazyregexp.New(`sched|_lock|_slowlock|down|rwsem|completion|kthread|wait|synchronize|context_switch|__switch_to|cancel_delayed_work|rcu_barrier`)
)

// Dispatches reports whether a function calls what others asked for: a system call, an interrupt, a work, a thread. Nothing at or
// below it in a call trace says what was called.
func Dispatches(function string) bool {
	name := baseName(function)
	return dispatches.MatchString(name) || entries.MatchString(name)
}

// entries are functions that dispatch, besides those of dispatches: what the processor enters, and the layers of interrupts and threads
// right above. Sources: arch/x86/entry, arch/arm64/kernel/entry.S and entry-common.c, kernel/irq, kernel/softirq.c, kernel/time,
// kernel/sched/idle.c, init/main.c.
var entries = lazyregexp.New(strings.Join([]string{
	`^(?:asm_|idtentry_|entry_|sysvec_|fred_)|^(?:common_interrupt|do_IRQ|ret_from_intr|apic_timer_interrupt|end_repeat_nmi|nmi|paranoid_entry|error_entry|page_fault)$|^smp_\w+_interrupt$`,
	`^el[01]t?h?_|^(?:ret_to_user|ret_fast_syscall|vectors|call_on_irq_stack|do_interrupt_handler|handle_arch_irq|gic_handle_irq|gic_\w+_handle_irq|handle_domain_irq)$|^__irq_svc$`,
	`^_*handle_irq_event|^handle_(?:edge|level|fasteoi|percpu|simple)\w*_irq$|^generic_handle_(?:arch_|domain_)?irq|^__?common_interrupt$|^irq_thread`,
	`^(?:__do_softirq|do_softirq\w*|handle_softirqs|invoke_softirq|run_(?:k?timer_)?softirqd?|run_ksoftirqd|\w+_softirq_(?:action|raise))$|^tasklet_action|^expire_timers$|^__hrtimer_|^hrtimer_(?:interrupt|run)|^tick_|^update_process_times$|^irq_exit`,
	`smp_call_function|^generic_smp_call|^worker_thread$|^process_scheduled_works$|^do_idle$|^cpuidle_|^rest_init$|^start_kernel$|^secondary_startup|^x86_64_start|^kernel_init|^do_one_initcall$|^do_init_module$`,
	`^(?:sock_write_iter|new_sync_|call_write_iter|call_read_iter|vfs_|ksys_|do_writev|do_readv)|^(?:proc_reg|full_proxy|short_proxy|open_proxy|kernfs_fop|sysfs_kf)_|^(?:seq_read|configfs_(?:read|write))(?:_iter|_file)?$|^dev_attr_(?:show|store)$`,
}, "|"))

// dispatches are functions that call what a system call, an interrupt, a work or a file asks for. What is looping lies above
// them.
var dispatches = lazyregexp.New(strings.Join([]string{
	// entries of the kernel
	`do_(?:fast_)?syscall_|sysenter_dispatch|tracesys_phase2|el0_svc_handler|invoke_syscall|ret_fast_syscall|ret_from_fork`,
	`do_softirq|call_timer_fn|_run_timers|run_timer_softirq|hrtimer_run|run_ksoftirqd|tasklet_(?:hi_)?action|smp_call_function`,
	`process_one_work|smpboot_thread_fn|^kthread$|start_secondary|cpu_startup_entry`,
	`__do_fault|do_page_fault|^page_fault$|exit_to_usermode|task_work_run|__fput`,
	// files
	`vfs_(?:read|write|iter_read|iter_write|ioctl|open)|do_iter_(?:read|write)|new_sync_(?:read|write)|call_(?:read|write)_iter`,
	`(?:ksys|compat|compat_sys|blkdev|blkdev_driver)_ioctl|do_dentry_open|^call_mmap|mmap_region|do_mmap`,
	// sockets
	`^sock_(?:sendmsg|recvmsg|release|mmap|do_ioctl|ioctl)|^__sock_release|^compat_sock_ioctl|kernel_(?:setsockopt|listen|accept)`,
	`sock_common_setsockopt|^(?:setsockopt|listen|accept)$|sk_common_release|netif_receive_skb|^nfnetlink_rcv_msg|^rtnetlink_rcv_msg|^netlink_dump`,
	`^(?:sys_)?(?:socketpair|connect|ioctl)`,
}, "|"))
