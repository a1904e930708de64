package oops

import (
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// shape says what a headline of one form means.
type shape struct {
	headline *lazyregexp.Regexp
	kind     Kind
	// title is the title without its function. $1 is a submatch of headline. %a is how KASAN names the access. A title
	// that ends in "/name" gets the function before the slash.
	title string
	blame blame
	skip  *lazyregexp.Regexp // functions that are not blamed, besides the helpers
}

// shapes are matched against plain headlines (see plainHeadline); the first that matches counts. The titles are those of
// syzbot, so that its reports can be found by them. Those of hard lockups, CFI, SError and die lines of other machines than
// x86 and arm are of the same form: syzbot has none.
var shapes = []shape{
	// mm/kasan/report.c
	{re(`^BUG: KASAN: (?:double-free or invalid-free|double-free|invalid-free)\b`), KASAN, "KASAN: invalid-free", named, re(`slab_|kfree|vunmap|vfree`)},
	{re(`^BUG: KASAN: ([\w-]+)`), KASAN, "KASAN: $1 %a", named, re(`kernel_fault|tag_check|mem_abort|^el1h?_`)},
	// mm/kmsan/report.c
	{re(`^BUG: KMSAN: (kernel-usb-infoleak)`), KMSAN, "KMSAN: $1", first, re(`alloc_skb|^usb_(?:submit_urb|start_wait_urb|bulk_msg|interrupt_msg|control_msg)`)},
	{re(`^BUG: KMSAN: (use of uninitialized memory|[\w-]+)`), KMSAN, "KMSAN: $1", first, re(`alloc_skb|^netlink_(?:ack|rcv_skb)|_encrypt$|^(?:crypto|cipher|drbg|rng)_`)},
	// kernel/kcsan/report.c
	{re(`^BUG: KCSAN: (.*)`), KCSAN, "KCSAN: $1", nobody, nil},
	// mm/kfence/report.c
	{re(`^BUG: KFENCE: ((?:use-after-free|out-of-bounds|invalid) (?:read|write)|invalid free|memory corruption)`), KFENCE, "KFENCE: $1", namedFirst, nil},
	// lib/ubsan.c
	{re(`^UBSAN: Undefined behaviour in`), UBSAN, "UBSAN: undefined-behaviour", frames, re(`ubsan|overflow`)},
	{re(`^(?:Internal error: )?UBSAN: ([\w -]+?)(?: in | at |: [0-9a-f]+ \[#|$)`), UBSAN, "UBSAN: $1", frames, re(`ubsan|overflow`)},
	// mm/kmemleak.c
	{re(`^BUG: memory leak`), MemoryLeak, "memory leak", first, re(`kmemleak|mmap|kmem|slab|alloc|create_object|idr_get|list_lru_init|k?v?asprintf|pcpu_create|mem_?dup`)},

	// arch/x86/mm/fault.c, arch/powerpc/mm/fault.c
	{re(`^BUG: (?:unable to handle kernel NULL|kernel NULL|Kernel NULL) pointer dereference`), NullDereference, "BUG: unable to handle kernel NULL pointer dereference", fault, nil},
	{re(`^BUG: (?:unable to handle kernel paging request|unable to handle page fault for address|Unable to handle (?:kernel|unknown) )`), PageFault, "BUG: unable to handle kernel paging request", fault, nil},
	{re(`^BUG: [Uu]nable to handle kernel`), PageFault, "BUG: unable to handle kernel", fault, nil},
	// arch/arm64/mm/fault.c, arch/arm/mm/fault.c, arch/riscv/mm/fault.c, arch/mips/mm/fault.c, arch/s390/mm/fault.c
	{re(`^(?:CPU \d+ )?Unable to handle kernel NULL pointer dereference`), NullDereference, "BUG: unable to handle kernel NULL pointer dereference", fault, nil},
	{re(`^(?:CPU \d+ )?Unable to handle kernel (access to user memory|read from unreadable memory|write to read-only memory|execut\w+ (?:from|of) \S+ memory)`), PageFault, "BUG: unable to handle kernel $1", fault, nil},
	{re(`^(?:CPU \d+ )?Unable to handle kernel `), PageFault, "BUG: unable to handle kernel paging request", fault, nil},

	// arch/x86/kernel/traps.c
	{re(`^general protection fault`), GeneralProtection, "general protection fault", fault, nil},
	{re(`^stack segment`), StackSegment, "stack segment fault", fault, nil},
	{re(`^divide[ _]error`), DivideError, "divide error", fault, nil},
	{re(`^invalid opcode`), InvalidOpcode, "invalid opcode", fault, nil},
	{re(`^int3\b`), Int3, "int3", fault, nil},
	{re(`^alignment check`), Alignment, "alignment check", fault, nil},
	{re(`^(?:traps: )?PANIC: double fault|^double fault`), DoubleFault, "PANIC: double fault", fault, nil},
	{re(`^control protection fault`), CFI, "control protection fault", fault, nil},
	{re(`^BUG: .*stack guard page was hit`), StackOverflow, "BUG: stack guard page was hit", stall, nil},
	{re(`^kernel stack overflow`), StackOverflow, "kernel stack overflow", stall, nil},
	{re(`^Kernel stack overflow|^Insufficient stack space to handle exception`), StackOverflow, "kernel stack overflow", stall, re(`bad_stack`)},
	{re(`^CFI failure at `), CFI, "CFI failure", named, nil},

	// mm/usercopy.c, lib/list_debug.c, lib/bug.c
	{re(`^kernel BUG at (?:\./)?mm/usercopy\.c`), UserCopy, "BUG: bad usercopy", frames, re(`usercopy|__check`)},
	{re(`^kernel BUG at (?:\./)?lib/list_debug\.c`), ListCorruption, "BUG: corrupted list", frames, nil},
	{re(`^kernel BUG at `), Bug, "kernel BUG", fault, re(`^skb_`)},
	{re(`^Kernel BUG`), Bug, "kernel BUG", fault, nil},
	{re(`^BUG: failure at `), Bug, "kernel BUG", frames, nil},
	{re(`^PANIC at `), Bug, "PANIC", frames, re(`^spl_`)}, // OpenZFS, module/os/linux/spl/spl-err.c
	{re(`^BUG (?:kmalloc-)?[\w:-]+ .*: Object already free`), SlabCorruption, "BUG: Object already free", nobody, nil},

	// kernel/watchdog.c, kernel/hung_task.c, kernel/rcu/tree_stall.h, kernel/workqueue.c
	{re(`^BUG: soft lockup`), SoftLockup, "BUG: soft lockup", stall, nil},
	{re(`^(?:watchdog: |NMI watchdog: )?(?:CPU ?\d*:? )?.*(?:hard LOCKUP|Hard LOCKUP)`), HardLockup, "BUG: hard lockup", stall, nil},
	{re(`^BUG: workqueue lockup`), WorkqueueLockup, "BUG: workqueue lockup", lastFunction, nil},
	{re(`^INFO: task .* blocked (?:for more than|in I/O wait for more than) `), HungTask, "INFO: task hung", hung, nil},
	{re(`^INFO: task .* can't die for more than `), HungTask, "INFO: task can't die", frames, re(`schedule`)},
	{re(`^INFO: task `), HungTask, "INFO: task hung", hung, nil}, // a name with a line feed
	{re(`^(?:rcu: )?INFO: rcu\w* (?:self-)?detected (?:expedited )?stall`), RCUStall, "INFO: rcu detected stall", rcuStall, re(`apic_timer_interrupt|rcu|sched_show_task|_cpu_stall|dump_cpu_task|^update_process_times|^tick_sched|hrtimer_(?:interrupt|run_queues)|schedule$|cond_resched|^__switch_to`)},
	{re(`^BUG: scheduling while atomic`), SchedulingWhileAtomic, "BUG: scheduling while atomic", frames, re(`schedule`)},
	{re(`^BUG: sleeping function called from invalid context`), SleepingWhileAtomic, "BUG: sleeping function called from invalid context", frames, nil},
	{re(`^BUG: using ([a-z_]+)\(\) in preemptible`), SleepingWhileAtomic, "BUG: using $1() in preemptible code", frames, re(`preempt|debug_|processor_id|this_cpu`)},

	// kernel/locking/spinlock_debug.c, kernel/locking/lockdep.c
	{re(`^BUG: (spinlock|rwlock) (lockup suspected|already unlocked|recursion|cpu recursion|bad magic|wrong owner|wrong CPU|trylock failure on UP)`), Spinlock, "BUG: $1 $2", frames, re(`spin_|_lock|_unlock`)},
	{re(`^(?:WARNING|INFO): possible circular locking dependency detected`), Lockdep, "possible deadlock", locks, re(`process_one_work|^(?:flush|drain|destroy)_workqueue`)},
	{re(`^(?:WARNING|INFO): possible (?:irq lock inversion dependency|recursive locking) detected`), Lockdep, "possible deadlock", locks, nil},
	{re(`^(?:WARNING|INFO): \w+-safe -> \w+-unsafe lock order detected`), Lockdep, "possible deadlock", first, nil},
	{re(`^(?:WARNING|INFO): inconsistent lock state`), Lockdep, "inconsistent lock state", taken, nil},
	{re(`^((?:WARNING|INFO): suspicious RCU usage)`), Lockdep, "$1", frames, re(`rcu|kmem|slab`)},
	{re(`^((?:WARNING|BUG): bad unlock balance) detected`), Lockdep, "$1", unlock, nil},
	{re(`^((?:WARNING|BUG): held lock freed)!`), Lockdep, "$1", locks, nil},
	{re(`^((?:WARNING|BUG): lock held when returning to user space)`), Lockdep, "$1", locks, nil},
	{re(`^(WARNING|BUG): .*(still has locks held)!`), Lockdep, "$1: $2", locks, nil},
	{re(`^WARNING: Nested lock was not taken`), Lockdep, "WARNING: nested lock was not taken", frames, nil},
	{re(`^BUG: Invalid wait context`), Lockdep, "WARNING: locking bug", frames, re(`lock_sock|release_sock`)},
	{re(`^INFO: trying to register non-static key`), Lockdep, "INFO: trying to register non-static key", frames, re(`stack|lock|IRQ`)},
	{re(`^BUG: workqueue leaked (?:lock or atomic|atomic, lock or RCU)`), Lockdep, "BUG: workqueue leaked lock or atomic", lastFunction, nil},
	{re(`^BUG: (MAX_\w+ too low)!`), Lockdep, "BUG: $1!", nobody, nil},

	// mm/page_alloc.c, mm/memory.c, mm/filemap.c, kernel/fork.c, fs/dcache.c, mm/slub.c
	{re(`^BUG: (Bad page (?:state|cache))`), BadPageState, "BUG: $1", pageOwner, re(`(?:free|put|get|update|release)_page|free_unref|^_*folio|truncate_inode_pages|page_frag_free|alloc|vmap|page_owner`)},
	{re(`^BUG: (Bad page map)`), BadPageState, "BUG: $1", nobody, nil},
	{re(`^BUG: (Bad rss-counter state|non-zero \w+ on freeing mm)`), BadPageState, "BUG: $1", nobody, nil},
	{re(`^BUG: Dentry .* still in use .*\[(unmount) of`), Bug, "BUG: Dentry still in use in $1", nobody, nil},
	{re(`^BUG [\w:.-]+ \(.*\): (.*)`), SlabCorruption, "BUG: $1", frames, re(`slab|slub|object|check_bytes|kmem|^k?v?free|free_debug`)},

	// WARN() in files of helpers (kernel/panic.c; since 6.19 "WARNING: file:line at function")
	{re(`^WARNING: .*\blib/debugobjects\.c`), DebugObjects, "WARNING: ODEBUG bug", fault, re(`debug_|rcu|hrtimer_|timer_|work_|percpu_|vunmap|vfree|__free_|kobject_`)},
	{re(`^WARNING: .*\bmm/usercopy\.c`), UserCopy, "WARNING: bad usercopy", fault, re(`usercopy|__check`)},
	{re(`^WARNING: .*\blib/kobject\.c`), Warning, "WARNING: kobject bug", fault, re(`kobject_`)},
	{re(`^WARNING: .*\bfs/proc/generic\.c`), Warning, "WARNING: proc registration bug", fault, re(`proc_`)},
	{re(`^WARNING: .*\blib/refcount\.c`), Refcount, "WARNING: refcount bug", fault, re(`refcount|kobject_`)},
	{re(`^WARNING: .*\bkernel/locking/lockdep\.c.*lock_`), Lockdep, "WARNING: locking bug", fault, re(`lock_sock|release_sock`)},
	{re(`^WARNING: .*\blib/list_debug\.c`), ListCorruption, "WARNING", fault, nil},
	{re(`^WARNING: .*\bmm/.*\.c.* k?.?malloc`), Warning, "WARNING: kmalloc bug", fault, re(`kmalloc|krealloc|slab|kmem`)},
	{re(`^WARNING: .*\bmm/vmalloc\.c.*__vmalloc_node`), Warning, "WARNING: zero-size vmalloc", fault, nil},
	{re(`^WARNING: .* usb_submit_urb`), Warning, "WARNING/usb_submit_urb", fault, re(`^usb_(?:submit_urb|start_wait_urb|bulk_msg|interrupt_msg|control_msg)`)},
	{re(`^WARNING: CPU: \d+ PID: \d+ at |^WARNING: at .*:\d+ |^WARNING: at \S+:\d+$|^WARNING: (?:\[.*\] )?\S+:\d+ at `), Warning, "WARNING", fault, nil},
	{re(`^WARNING: kernel stack regs at .* has bad '(\w+)' value`), Warning, "WARNING: kernel stack regs has bad '$1' value", nobody, nil},
	{re(`^WARNING: kernel stack frame pointer at .* has bad value`), Warning, "WARNING: kernel stack frame pointer has bad value", nobody, nil},

	// arch/arm64/kernel/traps.c, arch/arm/kernel/traps.c, arch/arm/mm/alignment.c
	{re(`^SError Interrupt on CPU`), ExternalAbort, "SError Interrupt", fault, nil},
	{re(`^Internal error: (?:synchronous external abort|level \d .*external abort)`), ExternalAbort, "Internal error", fault, nil},
	{re(`^Internal error: Oops - (?:CFI|BTI|FPAC|GCS)`), CFI, "Internal error", fault, nil},
	{re(`^Internal error: Oops - (?:[Uu]ndefined instruction)`), InvalidOpcode, "Internal error", fault, nil},
	{re(`^Internal error: (?:SP/PC alignment|SP Alignment|PC Alignment|alignment)`), Alignment, "Internal error", fault, nil},
	{re(`^Internal error: Oops - BUG`), Bug, "Internal error", fault, nil},
	{re(`^Internal error: (?:Oops: |Accessing user space memory)`), PageFault, "Internal error", fault, nil},
	{re(`^Internal error: `), Unknown, "Internal error", fault, nil},
	{re(`^Unhandled fault: .*external abort`), ExternalAbort, "Unhandled fault", fault, nil},
	{re(`^Unhandled fault: `), PageFault, "Unhandled fault", fault, nil},
	{re(`^Alignment trap: `), Alignment, "Alignment trap", fault, nil},
	{re(`^rust_kernel: panicked at `), Panic, "rust panic", frames, re(`rust_begin_unwind|^_R.*panick`)},

	// panic() of the kernel. Its message comes without PanicPrefix here.
	{panicked(`stack-protector: Kernel stack is corrupted in:`), StackCorruption, "kernel panic: stack is corrupted", named, re(`stack_chk`)},
	{panicked(`corrupted (?:shadow )?stack end detected inside scheduler`), StackOverflow, "kernel panic: corrupted stack end", stall, re(`schedule|retint_kernel`)},
	{panicked(`[Kk]ernel stack overflow`), StackOverflow, "kernel stack overflow", stall, re(`bad_stack`)},
	{panicked(`(low stack detected by irq handler.*|.* stack guard hit)`), StackOverflow, "kernel panic: $1", nobody, nil},
	{panicked(`Attempted to kill init!`), InitKilled, "kernel panic: Attempted to kill init!", nobody, nil},
	{panicked(`Couldn't open N_TTY ldisc`), Panic, "kernel panic: Couldn't open N_TTY ldisc", nobody, nil},
	{panicked(`(sysrq triggered crash.*)`), Sysrq, "kernel panic: $1", nobody, nil},
	{panicked(`((?:Out of memory|System is deadlocked on memory).*)`), OutOfMemory, "kernel panic: $1", nobody, nil},
	{panicked(`(.*(?:[Mm]achine [Cc]heck|MCE|MCA|[Hh]ardware [Ee]rror).*)`), MachineCheck, "kernel panic: $1", nobody, nil},
	{panicked(`(Timeout: Not all CPUs entered broadcast exception handler.*)`), MachineCheck, "kernel panic: $1", nobody, nil},
	{panicked(`(NMI.*|nmi:.*|An NMI occurred.*|Unrecoverable NMI.*)`), NMI, "kernel panic: $1", nobody, nil},
	{panicked(`(VFS:.*|No working init found.*|No init found.*|Requested init .*)`), RootFilesystem, "kernel panic: $1", nobody, nil},
	{panicked(`((?:softlockup|Watchdog: soft).*)`), SoftLockup, "kernel panic: $1", nobody, nil},
	{panicked(`((?:Hard LOCKUP|.*[Hh]ard lockup).*)`), HardLockup, "kernel panic: $1", nobody, nil},
	{panicked(`(hung_task: .*)`), HungTask, "kernel panic: $1", nobody, nil},
	{panicked(`(RCU Stall.*)`), RCUStall, "kernel panic: $1", nobody, nil},
	{panicked(`(Asynchronous SError.*|.*external abort.*)`), ExternalAbort, "kernel panic: $1", nobody, nil},
	{panicked(`((?:kernel: )?panic_on_warn set.*)`), Warning, "kernel panic: $1", nobody, nil},
	{panicked(`(.*)`), Panic, "kernel panic: $1", nobody, nil},

	// die() of other machines
	{re(`^Oops(?: -)?:? (?:[Kk]ernel access of bad area|(?:load|store|instruction) (?:access|page) fault)`), PageFault, "", fault, nil},
	{re(`^Oops(?: -)?:? illegal instruction|^(?:illegal operation|Illegal instruction|Reserved instruction in kernel code|Undefined instruction)`), InvalidOpcode, "", fault, nil},
	{re(`^(?:fixpoint divide|Integer overflow|Divide by zero)`), DivideError, "", fault, nil},
	{re(`^(?:Unhandled kernel unaligned access|Kernel unaligned access|Kernel ale access|Oops(?: -)? (?:load|store) address misaligned|specification exception)`), Alignment, "", fault, nil},
	{re(`^(?:Kernel bug detected|monitor event|Oops: Exception in kernel mode, sig: 5)`), Bug, "kernel BUG", fault, nil},
	{re(`^(?:Oops: )?(?:Machine check|Unhandled Machine Check)`), MachineCheck, "", fault, nil},
	{re(`^(?:Oops: )?(?:Kernel stack overflow|stack guard page)`), StackOverflow, "", stall, nil},
	{re(`^(?:protection exception|addressing exception|page translation|segment translation|(?:region-\w+|ASCE-type) (?:translation|exception))`), PageFault, "", fault, nil},
	{re(`^Oops: [0-9a-f]{4} \[#`), PageFault, "Oops", fault, nil}, // x86
}

func re(s string) *lazyregexp.Regexp { return lazyregexp.New(s) }

// panicked matches a panic message.
func panicked(s string) *lazyregexp.Regexp {
	return re(`^Kernel panic - not syncing: ` + s)
}

// shapeOf returns the shape of a headline, and the submatches.
func shapeOf(text string) (s shape, m []string) {
	for _, s := range shapes {
		if m := s.headline.FindStringSubmatch(text); m != nil {
			return s, m
		}
	}
	if dieNumbers.MatchString(text) {
		return shape{kind: Unknown, blame: fault}, []string{text}
	}
	return shape{kind: Unknown, blame: nobody}, []string{text}
}

// plainHeadline cuts off what differs between kernels: the name of the watchdog, "Oops: " before a trap of x86 (6.10 and
// later), the brackets of lockdep before 4.12.
func plainHeadline(text string) string {
	for _, prefix := range []string{"NMI watchdog: ", "watchdog: ", "traps: "} {
		if rest, ok := strings.CutPrefix(text, prefix); ok && strings.HasPrefix(rest, "BUG: ") {
			text = rest
		}
	}
	if rest, ok := strings.CutPrefix(text, "[ "); ok {
		text = strings.TrimSuffix(rest, " ]")
	}
	if m := x86Trap.FindStringSubmatch(text); m != nil {
		text = m[1]
	}
	return text
}

// x86Trap is a trap as die() prints it since 6.10.
var x86Trap = lazyregexp.New(`^Oops: ((?:general protection fault|stack segment|divide[ _]error|invalid opcode|int3|alignment check|double fault|control protection fault|kernel stack overflow|stack guard page|Oops).*)`)
