package printk

import "strings"

// TitleFinder picks out of a log the line that best tells what happened. Give it
// the lines in order with Add and ask with Line. The zero TitleFinder is ready.
type TitleFinder struct {
	panicLine headline // the panic message, the first one
	current   headline // of the report being read
	last      headline // of the last whole report
	told      headline // what a mark says of the whole log: see Shortener
}

// headline is the best line of one report so far.
type headline struct {
	text string
	rank int    // 0: none
	at   uint64 // offset of its line in the log, where that is known
}

// Ranks of headlines: a line that names the fault beats the one that names the
// trap it led to.
const (
	rankTrap = iota + 1
	rankFault
)

// headlines are how reports of faults begin, after the time stamp. The texts are
// those of the kernel: arch/x86/kernel/traps.c, arch/x86/mm/fault.c,
// arch/arm64/kernel/traps.c, arch/arm64/mm/fault.c, lib/bug.c, kernel/watchdog.c,
// kernel/hung_task.c, kernel/panic.c.
var headlines = []struct {
	prefix string
	rank   int
}{
	{"BUG: ", rankFault},
	{"kernel BUG at ", rankFault},
	{"watchdog: BUG: ", rankFault},
	{"watchdog: Watchdog detected ", rankFault},
	{"NMI watchdog: Watchdog detected ", rankFault}, // before 6.6
	{"general protection fault", rankFault},
	{"Oops: general protection fault", rankFault}, // 6.10 and later
	{"Unable to handle kernel ", rankFault},       // arm64
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

// vaguePanics are panic messages that only say that a fault reported before was
// too much.
var vaguePanics = []string{
	"Fatal exception", "Oops", "panic_on_warn set", "softlockup: hung tasks", "hung_task: blocked tasks",
	"kernel: panic_on_warn set", "RCU Stall", "Hard LOCKUP", "stack overflow", "kernel stack overflow",
	"Asynchronous SError Interrupt", "BUG!", "UBSAN: panic_on_warn set", "KASAN: panic_on_warn set", "synchronous external abort",
}

// Add takes the next line of the log, as Dump writes it or without its time stamp.
func (f *TitleFinder) Add(line string) { f.add(line, 0) }

// add takes the line at offset at.
func (f *TitleFinder) add(line string, at uint64) {
	if told, ok := markTitle(line); ok {
		f.told = headline{text: told, rank: rankFault, at: at}
		return
	}
	text := stripPrefix(line)
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
	for _, h := range headlines {
		if strings.HasPrefix(text, h.prefix) && h.rank > f.current.rank {
			f.current = headline{text: text, rank: h.rank, at: at}
			return
		}
	}
}

// Line returns the line, without time stamp: the panic message, or, where that says
// no more than that there was a fault, or where there is none, the first line of the
// last report before it. It is empty when the log tells of no crash.
// Of a log that was shortened it is the one of the whole log.
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

// PanicLine returns the line of a log that best tells what happened, as a
// TitleFinder finds it.
func PanicLine(lines []string) string {
	var f TitleFinder
	for _, line := range lines {
		f.Add(line)
	}
	return f.Line()
}

// stripPrefix cuts the time stamp and the caller id off a line of the log:
// "[    1.234567] ", "[    1.234567][   T12] " or "[    1.234567] [   T12] ".
func stripPrefix(line string) string {
	line = strings.TrimRight(line, "\r\n")
	for range 2 {
		rest := strings.TrimPrefix(line, " ")
		if !strings.HasPrefix(rest, "[") {
			return rest
		}
		end := strings.IndexByte(rest, ']')
		if end < 0 || strings.Trim(rest[1:end], " .0123456789TC") != "" {
			return rest
		}
		line = rest[end+1:]
	}
	return strings.TrimPrefix(line, " ")
}
