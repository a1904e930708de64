// Package headline finds, in the text of a kernel log, the line that best names a crash, and where its report begins and
// ends. It cuts off what dmesg, consoles and log daemons put before the kernel's text.
//
// The text is hostile input: a Finder keeps a fixed number of lines, and every function takes any bytes. A program of the
// crashed machine can write the same text to /dev/kmsg. Only a level that names another facility than the kernel's gives
// such a line away (see Line.Program); all other lines that look like the kernel's are taken for the kernel's.
//
// Functions are safe for concurrent use. A Finder belongs to one goroutine.
package headline

import (
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// Rank says how well a line names a crash.
type Rank int

// Ranks of headlines. A line that names the fault outranks one that names the trap. Both outrank a complaint, which the
// machine survives unless it is told to panic, as it does a warning.
const (
	NoHeadline Rank = iota
	Complaint
	Trap
	Fault
)

type prefixRank struct {
	prefix string
	rank   Rank
}

// headlines are the beginnings of fault reports, behind the time stamp. Sources: arch/x86/kernel/traps.c,
// arch/x86/mm/fault.c, arch/arm64/kernel/traps.c, arch/arm64/mm/fault.c, arch/powerpc/kernel/watchdog.c, lib/bug.c,
// lib/ubsan.c, kernel/cfi.c, kernel/watchdog.c, kernel/hung_task.c, kernel/panic.c, kernel/locking/lockdep.c,
// kernel/sched/core.c, kernel/workqueue.c, mm/kmemleak.c, OpenZFS' module/os/linux/spl/spl-err.c. The first that matches counts.
var headlines = []prefixRank{
	{"BUG: soft lockup ", Complaint},
	{"BUG: workqueue lockup", Complaint},
	{"BUG: sleeping function called from invalid context", Complaint},
	{"BUG: scheduling while atomic", Complaint},
	{"BUG: using ", Complaint},
	{"BUG: memory leak", Complaint},
	{"BUG: KCSAN: ", Complaint},
	{"BUG: MAX_", Complaint}, // lockdep
	{"BUG: spinlock ", Complaint},
	{"BUG: rwlock ", Complaint},
	{"BUG: ", Fault},
	{"kernel BUG at ", Fault},
	{"watchdog: BUG: ", Complaint},
	{"NMI watchdog: BUG: ", Complaint}, // 3.x and 4.x
	{"watchdog: Watchdog detected ", Complaint},
	{"NMI watchdog: Watchdog detected ", Complaint}, // before 6.6
	{"general protection fault", Fault},
	{"Oops: general protection fault", Fault}, // 6.10 and later
	{"Unable to handle kernel ", Fault},       // arm64, riscv, s390
	{"SError Interrupt on CPU", Fault},        // arm64
	{"CFI failure at ", Fault},
	{"UBSAN: ", Fault},
	{"INFO: task ", Complaint},
	{"INFO: rcu", Complaint},
	{"rcu: INFO: ", Complaint},
	{"INFO: trying to register non-static key", Complaint},
	{"[ BUG: ", Complaint}, // lockdep before 4.12
	{"[ INFO: possible ", Complaint},
	{"[ INFO: inconsistent ", Complaint},
	{"[ INFO: SOFTIRQ-", Complaint},
	{"[ INFO: HARDIRQ-", Complaint},
	{"[ INFO: RECLAIM_FS-", Complaint},
	{"[ INFO: suspicious ", Complaint},
	{"Kernel stack overflow", Fault},
	{"Unhandled fault: ", Fault}, // arm
	{"rust_kernel: panicked at ", Fault},
	{"Insufficient stack space to handle exception", Fault},
	{"traps: PANIC: ", Fault},
	{"PANIC: double fault", Fault},
	{"PANIC: early exception", Fault},
	{"PANIC at ", Complaint}, // OpenZFS, which stops the task only
	{"double fault", Trap},
	{"stack segment", Trap},
	{"divide error", Trap},
	{"invalid opcode", Trap},
	{"int3: ", Trap}, // int3472 and others are drivers
	{"alignment check", Trap},
	{"Internal error: ", Trap}, // arm64
}

// byFirst are the headlines by their first byte. Every line of every log is looked up.
var byFirst = func() (list [256][]prefixRank) {
	for _, h := range headlines {
		list[h.prefix[0]] = append(list[h.prefix[0]], h)
	}
	return list
}()

const (
	// PanicPrefix begins the panic message (kernel/panic.c).
	PanicPrefix = "Kernel panic - not syncing: "
	// reportEnd is the line that oops_exit() and __warn() print last (kernel/panic.c).
	reportEnd = "---[ end trace"
)

// vaguePanics are panic messages that only say that an earlier fault was fatal.
var vaguePanics = []string{
	"Fatal exception", "Oops", "panic_on_warn set", "scheduling while atomic", "softlockup: hung tasks", "hung_task: blocked tasks",
	"kernel: panic_on_warn set", "RCU Stall", "Hard LOCKUP", "stack overflow", "kernel stack overflow", "Kernel stack overflow",
	"Asynchronous SError Interrupt", "BUG!", "UBSAN: panic_on_warn set", "KASAN: panic_on_warn set",
	"KCSAN: panic_on_warn set", "KFENCE: panic_on_warn set", "kmsan.panic set", "kasan.fault=panic set", "Machine halted.",
	"Aiee, killing interrupt handler!", "Attempted to kill the idle task!", "synchronous external abort",
}

// warning matches the first line of WARN() and of lockdep's reports. What else begins with "WARNING: " is a message of a
// driver or a program.
var warning = lazyregexp.New(`^WARNING: (?:CPU: \d|at \S|(?:\[.*\] )?\S+:\d+ at |kernel stack (?:regs|frame pointer) |` +
	`possible |inconsistent lock state|suspicious RCU usage|bad unlock balance|held lock freed|lock held when returning |` +
	`.{1,40} still has locks held!|[Nn]ested lock was not taken|\w+-safe -> \w+-unsafe )`)

// oopsLine matches "Oops: 0000 [#1] SMP", "Oops[#1]:", "Oops - load access fault [#1]", "Oops [#1]", and the forms of
// kernels without the counter.
var oopsLine = lazyregexp.New(`^Oops(?:: [0-9a-f]{4}\b|(?:: | -|)[^!?]{0,100} ?\[#\d{1,4}\]|: .{1,60}, sig: \d)`)

// dieLine matches the line that die() prints on other machines: "divide error: 0000 [#1] SMP" and "illegal operation: 0001
// ilc:1 [#1]" with a code of 4 digits or more, "Kernel bug detected[#1]:", "swapper(0): Kernel bad trap [#1]", "Illegal
// instruction, sig: 4 [#1]", "Kernel BUG [#1]".
var dieLine = lazyregexp.New(`^(?:[A-Za-z][^:]*: [0-9a-f]{4,16}(?: ilc:\d)? \[#\d{1,4}\](?: [A-Z]|$)|[A-Za-z][^:]*[a-z]\[#\d{1,4}\]:|` +
	`\S{1,16}\(\d+\): .* \[#\d{1,4}\]|[A-Za-z].*, sig: \d+ \[#\d|[Kk]ernel [^:]* \[#\d{1,4}\]$)`)

// longest is how many bytes of a line are matched: with paths of files, headlines are shorter.
const longest = 512

// slub matches the first line of a report of the allocator (mm/slub.c, slab_bug).
var slub = lazyregexp.New(`^BUG [\w.:-]+ \(.*\): `)

// otherCPU matches the prefix of loongarch and mips.
var otherCPU = lazyregexp.New(`^CPU \d+ Unable to handle kernel `)

// RankOf returns the rank of the kernel's text in a line.
func RankOf(text string) Rank {
	if text == "" {
		return NoHeadline
	}
	for _, h := range byFirst[text[0]] {
		if strings.HasPrefix(text, h.prefix) {
			return h.rank
		}
	}
	switch {
	case strings.HasPrefix(text, "WARNING: ") && warning.MatchString(text[:min(len(text), longest)]):
		return Complaint
	case strings.HasPrefix(text, "Oops") && oopsLine.MatchString(text):
		return Trap
	case strings.HasPrefix(text, "CPU ") && otherCPU.MatchString(text):
		return Fault
	case strings.HasPrefix(text, "watchdog: CPU") && strings.Contains(text, "LOCKUP"), // powerpc, and 6.13 and later
		strings.HasPrefix(text, "Watchdog CPU:") && strings.HasSuffix(text, "Hard LOCKUP"): // powerpc until 4.17
		return Complaint
	case strings.HasPrefix(text, "BUG ") && slub.MatchString(text):
		return Fault
	case len(text) <= longest && strings.Contains(text, "[#") && dieLine.MatchString(text):
		return Trap
	}
	return NoHeadline
}

// IsVague reports whether a panic message (the text behind PanicPrefix) only says that an earlier fault was fatal.
func IsVague(message string) bool {
	for _, v := range vaguePanics {
		if strings.HasPrefix(message, v) {
			return true
		}
	}
	return false
}
