package headline

import (
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// Event says what a line of the log does to the report that a Finder reads.
type Event int

const (
	// None: the line belongs to whatever was before it.
	None Event = iota
	// Begin: the line is the headline of a new report, or a better one of the same report.
	Begin
	// End: the line ends the report. What follows belongs to no report.
	End
	// Panic: the line is the panic message, the first one. No report begins after it.
	Panic
)

// Source says which line a Finder chose.
type Source int

const (
	// NoCrash: the log shows no crash.
	NoCrash Source = iota
	// Current: the headline of the report that has not ended.
	Current
	// Last: the headline of the last report that ended, or that the panic message ended.
	Last
	// PanicLine: the panic message.
	PanicLine
)

const (
	// sameReport is the longest time between two headlines of one report, in seconds.
	sameReport = 10
	// untilPanic is the longest time between a report and the panic that it leads to, in seconds. RCU waits 10 s for the
	// other CPUs' traces (kernel/rcu/tree_stall.h, lib/nmi_backtrace.c), and a serial console is slow.
	untilPanic = 60
)

// Finder finds the line of a log that best names the crash. Pass the lines in order to Add, then call Chosen. The zero
// Finder is ready.
type Finder struct {
	panicLine ranked // the panic message, the first one
	current   ranked // of the report that is being read
	last      ranked // of the last complete report
}

type ranked struct {
	Line
	rank Rank
}

// Add takes the next line of the log.
func (f *Finder) Add(l Line) Event {
	switch {
	case l.Program:
		return None
	case strings.HasPrefix(l.Text, reportEnd):
		return f.end(l)
	case strings.HasPrefix(l.Text, PanicPrefix):
		return f.panicked(l)
	case f.panicLine.rank != NoHeadline:
		return None
	}
	// An old report without an end, such as that of a hung task, does not belong to this crash.
	rank := RankOf(l.Text)
	if rank > f.current.rank || rank > NoHeadline && apart(f.current.Sec, l.Sec, sameReport) {
		f.current = ranked{l, rank}
		return Begin
	}
	return None
}

// end ends the current report. Where the lines name their callers, only its own caller ends it.
func (f *Finder) end(l Line) Event {
	other := l.Caller != "" && f.current.Caller != "" && l.Caller != f.current.Caller
	if f.current.rank == NoHeadline || other {
		return None
	}
	f.last, f.current = f.current, ranked{}
	return End
}

func (f *Finder) panicked(l Line) Event {
	if f.panicLine.rank != NoHeadline {
		return None
	}
	f.panicLine = ranked{l, Fault}
	if f.current.rank != NoHeadline {
		f.last, f.current = f.current, ranked{}
	}
	return Panic
}

// Chosen returns the panic message. If there is none, or a vague one, it returns the first headline of the last report
// before it.
func (f *Finder) Chosen() (Line, Source) {
	if f.panicLine.rank == NoHeadline {
		switch {
		case f.current.rank != NoHeadline:
			return f.current.Line, Current
		case f.last.rank != NoHeadline:
			return f.last.Line, Last
		}
		return Line{}, NoCrash
	}
	if f.last.rank == NoHeadline || !f.leads() {
		return f.panicLine.Line, PanicLine
	}
	return f.last.Line, Last
}

// leads reports whether the last report says more of the panic than its message.
func (f *Finder) leads() bool {
	// The report of a fault long before the panic is of another fault: the log lost the right one.
	if f.last.Sec > 0 && apart(f.last.Sec, f.panicLine.Sec, untilPanic) {
		return false
	}
	message := strings.TrimPrefix(f.panicLine.Text, PanicPrefix)
	if afterDie.MatchString(message) {
		return f.last.rank > Complaint
	}
	return IsVague(message)
}

// apart reports whether a line is more than limit seconds later than an earlier one. A stamp that goes back is that of another
// boot.
func apart(earlier, later, limit uint64) bool {
	return later > earlier+limit || later > 0 && earlier > later+limit
}

// afterDie are messages that follow a report of die(), so that a warning before them is not their cause. An oops of init ends
// it with SIGKILL or SIGSEGV (make_task_dead() in kernel/exit.c). Init may get a signal from a program too, and then there
// is no oops.
var afterDie = lazyregexp.New(`^(?:Fatal exception|Oops|BUG!|Aiee, killing interrupt handler!|Attempted to kill the idle task!|` +
	`Attempted to kill init! exitcode=0x0000000[9b])`)

// Panicked returns the text of the panic message, "" without one.
func (f *Finder) Panicked() string { return f.panicLine.Text }
