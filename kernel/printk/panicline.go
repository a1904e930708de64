package printk

import (
	"regexp"
	"strconv"
	"strings"
)

// TitleFinder finds the line of a log that best names the crash. Pass the lines in order to Add, then call Line. The
// zero TitleFinder is ready.
type TitleFinder struct {
	panicLine headline // the panic message, the first one
	current   headline // of the report that is being read
	last      headline // of the last complete report
	told      headline // the panic line that a mark of a Shortener names
}

// headline is the best line of a report so far.
type headline struct {
	text string
	rank int    // 0: none
	at   uint64 // offset of its line in the log, if known
	sec  uint64 // its time stamp, 0 without one
}

// Ranks of headlines: a line that names the fault outranks one that names the trap.
const (
	rankTrap = iota + 1
	rankFault
)

// headlines are the beginnings of fault reports, behind the time stamp. Sources: arch/x86/kernel/traps.c,
// arch/x86/mm/fault.c, arch/arm64/kernel/traps.c, arch/arm64/mm/fault.c, arch/powerpc/kernel/watchdog.c, lib/bug.c,
// lib/ubsan.c, kernel/cfi.c, kernel/watchdog.c, kernel/hung_task.c, kernel/panic.c.
var headlines = []struct {
	prefix string
	rank   int
}{
	{"BUG: ", rankFault},
	{"kernel BUG at ", rankFault},
	{"watchdog: BUG: ", rankFault},
	{"NMI watchdog: BUG: ", rankFault}, // 3.x and 4.x
	{"watchdog: Watchdog detected ", rankFault},
	{"watchdog: CPU ", rankFault},                   // powerpc
	{"NMI watchdog: Watchdog detected ", rankFault}, // before 6.6
	{"general protection fault", rankFault},
	{"Oops: general protection fault", rankFault}, // 6.10 and later
	{"Unable to handle kernel ", rankFault},       // arm64, riscv, s390
	{"SError Interrupt on CPU", rankFault},        // arm64
	{"CFI failure at ", rankFault},
	{"UBSAN: ", rankFault},
	{"WARNING: ", rankFault},
	{"INFO: task ", rankFault},
	{"INFO: rcu", rankFault},
	{"rcu: INFO: ", rankFault},
	{"Kernel stack overflow", rankFault},
	{"Insufficient stack space to handle exception", rankFault},
	{"traps: PANIC: ", rankFault},
	{"PANIC: ", rankFault},
	{"double fault", rankTrap},
	{"stack segment", rankTrap},
	{"divide error", rankTrap},
	{"invalid opcode", rankTrap},
	{"int3", rankTrap},
	{"alignment check", rankTrap},
	{"Internal error: ", rankTrap}, // arm64
	{"Oops", rankTrap},
}

const (
	panicPrefix = "Kernel panic - not syncing: "
	reportEnd   = "---[ end trace"
)

// vaguePanics are panic messages that only say that an earlier fault was fatal.
var vaguePanics = []string{
	"Fatal exception", "Oops", "panic_on_warn set", "softlockup: hung tasks", "hung_task: blocked tasks",
	"kernel: panic_on_warn set", "RCU Stall", "Hard LOCKUP", "stack overflow", "kernel stack overflow",
	"Asynchronous SError Interrupt", "BUG!", "UBSAN: panic_on_warn set", "KASAN: panic_on_warn set", "synchronous external abort",
}

// Add takes the next line of the log, with or without the time stamp of Dump.
func (f *TitleFinder) Add(line string) { f.add(line, 0) }

// add takes the line at offset at.
func (f *TitleFinder) add(line string, at uint64) {
	if told, ok := markTitle(line); ok {
		f.told = headline{text: told, rank: rankFault, at: at}
		return
	}
	text, sec := stripPrefix(line)
	if strings.HasPrefix(text, reportEnd) {
		if f.current.rank > 0 {
			f.last, f.current = f.current, headline{}
		}
		return
	}
	if strings.HasPrefix(text, panicPrefix) {
		if f.panicLine.rank == 0 {
			f.panicLine = headline{text: text, rank: rankFault, at: at}
			if f.current.rank > 0 {
				f.last = f.current
			}
		}
		return
	}
	if f.panicLine.rank > 0 {
		return
	}
	// An old report without an end, such as that of a hung task, does not belong to this crash.
	if rank := rankOf(text); rank > f.current.rank || rank > 0 && sec > f.current.sec+sameReport {
		f.current = headline{text: text, rank: rank, at: at, sec: sec}
	}
}

// sameReport is the longest time between two headlines of one report, in seconds.
const sameReport = 10

// dieLine matches the end of the line that die() prints on every machine: "divide error: 0000 [#1] SMP", "illegal
// operation: 0001 ilc:1 [#1]", "Oops[#1]:", "Oops [#1]".
var dieLine = regexp.MustCompile(`^[a-zA-Z].*\[#\d{1,4}\](:| [A-Z]|$)`)

// otherCPU matches the prefix of loongarch and mips.
var otherCPU = regexp.MustCompile(`^CPU \d+ Unable to handle kernel `)

// rankOf returns the rank of a line, 0 if it is no headline.
func rankOf(text string) int {
	for _, h := range headlines {
		if strings.HasPrefix(text, h.prefix) {
			return h.rank
		}
	}
	switch {
	case strings.HasPrefix(text, "CPU ") && otherCPU.MatchString(text):
		return rankFault
	case strings.Contains(text, "[#") && dieLine.MatchString(text):
		return rankTrap
	}
	return 0
}

// Line returns the panic message without time stamp. If there is none, or a vague one, it returns the first headline
// of the last report before it. It is empty if the log shows no crash. For a shortened log it is the line of the
// whole log.
func (f *TitleFinder) Line() string { return f.title().text }

func (f *TitleFinder) title() headline {
	if f.told.rank > 0 {
		return f.told
	}
	fault := f.last
	if f.panicLine.rank == 0 && f.current.rank > 0 {
		fault = f.current
	}
	if f.panicLine.rank == 0 {
		return fault
	}
	if fault.rank == 0 || !isVague(strings.TrimPrefix(f.panicLine.text, panicPrefix)) {
		return f.panicLine
	}
	return fault
}

func isVague(message string) bool {
	for _, v := range vaguePanics {
		if strings.HasPrefix(message, v) {
			return true
		}
	}
	return false
}

// stripPrefix cuts off the time stamp and the caller id of a line, and the level that some programs put before them:
// "[    1.234567] ", "[    1.234567][   T12] ", "[    1.234567] [   T12] ", "<4>[    1.234567] ". sec is the time
// stamp in seconds.
func stripPrefix(line string) (text string, sec uint64) {
	line = strings.TrimRight(line, "\r\n")
	if level, rest, ok := strings.Cut(line, ">"); ok && len(level) <= 4 && strings.HasPrefix(level, "<") && strings.Trim(level[1:], digits) == "" {
		line = rest
	}
	for range 2 {
		rest := strings.TrimPrefix(line, " ")
		if !strings.HasPrefix(rest, "[") {
			return rest, sec
		}
		end := strings.IndexByte(rest, ']')
		if end < 0 || strings.Trim(rest[1:end], digits+" .TC") != "" {
			return rest, sec
		}
		if whole, _, ok := strings.Cut(rest[1:end], "."); ok && sec == 0 {
			sec, _ = strconv.ParseUint(strings.TrimSpace(whole), 10, 64) // 0 if it is not a number
		}
		line = rest[end+1:]
	}
	return strings.TrimPrefix(line, " "), sec
}

const digits = "0123456789"
