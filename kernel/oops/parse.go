package oops

import (
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
	"github.com/corehaul/corehaul/kernel/headline"
)

// longestReport is the longest time that a report takes, in seconds. What comes later, if no line ended the report, is the
// log of a machine that survived it.
const longestReport = 60

const (
	// maxTraces and maxFrames limit what a report holds. An overflown kernel stack of 32 KiB has more than 1000 frames, if
	// one counts those that the kernel could not prove.
	maxTraces    = 64
	maxFrames    = 2000
	maxRegisters = 128
	maxModules   = 2000
)

// parser reads the lines of one report.
type parser struct {
	r *Report

	section  *section // of the CPU or task whose dump is read
	sections []*section
	trace    *Trace // the open trace, nil between traces
	context  string // stack of the next frame
	leave    bool   // the last line ended a stack: a line that is no frame ends the trace
	name     string // the last line that names a trace
	modules  bool   // the last line was one of the modules' names

	held   []Location // places of locks: "at: foo+0x1/0x2"
	access string     // "Read" or "Write" as KASAN prints it
	last   string     // the function that a worker ran last
	blamed int        // the trace that was blamed, an index of r.Traces

	accusedComm string // the task that the report is about, where the lines of another follow
	accusedPID  *int
	accusedCPU  *int

	foreign bool // another report began
	own     int  // how many of r.Traces are of this report; they come first
}

// section is the dump of one CPU or task: what a report prints from "CPU: 0 PID: 1" to the next such line.
type section struct {
	cpu, pid   *int
	comm       string
	ip, lr     *Location
	user       bool // ip is one of user space
	registers  Registers
	code       string
	traces     []*Trace
	introduced bool // by a line of its own
	foreign    bool // of another report
}

// report reads a draft. panicked is what follows the panic message, or nil.
func (d *draft) report(panicked *draft) *Report {
	p := parser{r: &Report{Headline: d.lines[0].Text, Truncated: d.truncated}}
	p.newSection()
	p.banner(d.banner)
	p.lines(d)
	if panicked != nil && (overflowed.MatchString(p.r.Headline) || !p.traced() && warned.MatchString(p.r.Headline)) {
		p.lines(panicked) // the kernel prints the trace there
	}
	p.headline()
	p.finish()
	p.classify(d)
	p.blamedFirst()
	return p.r
}

// overflowed is a headline whose report has no trace of its own (arch/arm64/kernel/traps.c, panic_bad_stack).
var overflowed = lazyregexp.New(`^Insufficient stack space to handle exception`)

// warned is a headline whose report has no trace of its own, if panic_on_warn is set and the kernel is an older one
// (kernel/panic.c until 4.16 or later, as the machine goes; kernel/sched/core.c, __schedule_bug).
var warned = lazyregexp.New(`^WARNING: |^BUG: scheduling while atomic`)

// complete adds what the lines behind the panic message say, if the report's own lines do not: the kernel's name, and the
// trace of the CPU that panicked.
func (r *Report) complete(panicked *draft) {
	p := panicked.report(nil)
	r.Truncated = r.Truncated || panicked.truncated
	if len(r.Traces) == 0 {
		r.Traces = p.Traces
	}
	if r.CPU == nil && r.PID == nil {
		r.CPU, r.PID, r.Comm = p.CPU, p.PID, p.Comm
	}
	if r.Taint == nil {
		r.Taint = p.Taint
	}
	r.Release, r.Version = either(r.Release, p.Release), either(r.Version, p.Version)
	r.Hardware = either(r.Hardware, p.Hardware)
	if len(r.Modules) == 0 {
		r.Modules = p.Modules
	}
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// lines reads the lines of the report's caller. After an NMI was sent, other CPUs answer.
func (p *parser) lines(d *draft) {
	caller, answers := d.lines[0].Caller, false
	for i, l := range d.lines {
		answers = answers || strings.HasPrefix(l.Text, "Sending NMI from CPU")
		other := caller != "" && l.Caller != "" && l.Caller != caller
		if answers && other && l.Caller[0] == 'C' {
			other = false
		}
		if l.Program || other {
			continue
		}
		if head := d.lines[0]; head.Sec > 0 && l.Sec > head.Sec+longestReport {
			return
		}
		if i > 0 && !belongs(d.lines[0].Text, l.Text) {
			p.foreign = true
			p.newSection()
		}
		p.line(l.Text)
	}
}

// belongs reports whether a line belongs to the report that began with head. It does not if it begins another report, unless
// it is the headline again, with a function that a symbolizer found inlined in the first.
func belongs(head, text string) bool {
	switch rank := headline.RankOf(text); {
	case otherStacks.MatchString(text):
		return false
	case rank <= headline.Trap && rank != headline.Complaint:
		return true // die() prints the trap after the fault
	case stalled.MatchString(head) && stalled.MatchString(text):
		return true // two CPUs may notice a stall of RCU
	case strings.HasPrefix(head, "rust_kernel: "):
		return strings.HasPrefix(text, "kernel BUG at ") // rust/kernel/lib.rs panics by BUG()
	}
	return strings.HasSuffix(head, " [inline]") && strings.HasPrefix(text, firstWords(head))
}

// stalled is a headline of kernel/rcu/tree_stall.h.
var stalled = lazyregexp.New(`^(?:rcu: )?INFO: rcu\w* (?:self-)?detected `)

// otherStacks are messages with a call trace that are no reports of a crash: lib/fault-inject.c, mm/oom_kill.c,
// mm/page_alloc.c, mm/vmalloc.c.
var otherStacks = lazyregexp.New(`^FAULT_INJECTION: forcing a failure|^\S.{0,20} invoked oom-killer: |^\S.{0,20}: (?:page|vmalloc).{0,20} allocation failure|: vmalloc (?:size|error)`)

// firstWords returns the words before the function of a headline.
func firstWords(head string) string {
	before, _, _ := strings.Cut(head, " in ")
	return before
}

// line reads one line.
func (p *parser) line(text string) {
	if strings.TrimSpace(text) == "" {
		return
	}
	for m := contextLine.FindStringSubmatch(text); m != nil; m = contextLine.FindStringSubmatch(text) {
		p.leave = m[1] != "" || m[2] == "EOI" || m[2] == "EOE"
		if p.context = m[2]; p.leave {
			p.context = ""
		}
		if text = text[len(m[0]):]; text == "" {
			return
		}
	}
	frames := parseFrames(text)
	if frames == nil && (p.trace != nil || p.name != "") {
		frames = decodedFrame(text)
	}
	if frames != nil {
		p.leave = false
		p.frames(frames)
		return
	}
	if strings.HasPrefix(text, "RIP: 0010:") || strings.HasPrefix(text, "RIP: e030:") {
		p.leave = false // the trace goes on where the interrupt was (x86, 4.15 to 5.7)
	}
	if p.leave || lastLine.MatchString(text) {
		p.close()
	}
	if p.moduleNames(text) || p.registerLine(text) || p.who(text) || p.about(text) {
		return
	}
	if text = strings.TrimSpace(text); startsTrace(text) {
		p.close()
		p.name = text
	}
}

// startsTrace reports whether a line names the trace that follows it, or ends the one before it.
func startsTrace(text string) bool {
	return strings.HasSuffix(text, ":") || strings.HasPrefix(text, "page last ") || strings.HasPrefix(text, "---[ end") ||
		strings.HasPrefix(text, headline.PanicPrefix) || strings.HasPrefix(text, "NMI backtrace for cpu") || strings.HasPrefix(text, "Showing all locks")
}

func (p *parser) newSection() {
	p.section = &section{foreign: p.foreign}
	p.sections = append(p.sections, p.section)
	p.close()
}

// close ends the open trace.
func (p *parser) close() { p.trace, p.context, p.leave = nil, "", false }

// lastLine is a line of x86 that __die() prints behind the trace: CR2, and RIP until 4.19 (arch/x86/kernel/dumpstack.c,
// arch/x86/mm/fault.c).
var lastLine = lazyregexp.New(`^(?:CR2: [0-9a-f]{8,16}$|RIP +\[<|RIP: [A-Za-z_]|EIP: \[<)`)

// frames adds frames to the open trace, or opens one.
func (p *parser) frames(frames []Frame) {
	p.modules = false
	if strings.HasPrefix(p.name, "The buggy address belongs to ") {
		return // of KASAN: a variable, printed as a place
	}
	if p.trace == nil {
		if p.countTraces() >= maxTraces {
			p.r.Truncated = true
			return
		}
		p.trace = &Trace{Name: strings.TrimSpace(strings.TrimSuffix(p.name, ":"))}
		p.section.traces = append(p.section.traces, p.trace)
		p.name = ""
	}
	if n := len(p.trace.Frames); len(frames) == 2 && n > 0 && baseName(p.trace.Frames[n-1].Function) == baseName(frames[0].Function) {
		frames = frames[1:] // arm names the called function again
	}
	for _, f := range frames {
		if len(p.trace.Frames) >= maxFrames {
			p.r.Truncated = true
			return
		}
		f.Context = p.context
		p.trace.Frames = append(p.trace.Frames, f)
	}
}

// traced reports whether a call trace was read. Some reports have other traces.
func (p *parser) traced() bool {
	for _, s := range p.sections {
		if slices.ContainsFunc(s.traces, func(t *Trace) bool { return callTrace.MatchString(t.Name) }) {
			return true
		}
	}
	return false
}

func (p *parser) countTraces() int {
	n := 0
	for _, s := range p.sections {
		n += len(s.traces)
	}
	return n
}

// registerLine reads a line of registers. Registers within a trace are those of an exception between its frames.
func (p *parser) registerLine(text string) bool {
	ip, user, isIP := instructionPointer(text)
	if isIP {
		p.setIP(ip, user)
		if p.trace != nil {
			return true
		}
	}
	if m := interrupt.FindStringSubmatch(text); m != nil && p.trace != nil {
		ip := location(m[1])
		p.setIP(ip, ip != nil && ip.Function == "")
		return true
	}
	if m := lrLine.FindStringSubmatch(text); m != nil && p.trace == nil {
		if lr := location(m[1] + m[2]); lr != nil && p.section.lr == nil {
			p.section.lr = lr
		}
		isIP = true
	}
	if m := code.FindStringSubmatch(text); m != nil {
		if p.trace == nil && p.section.code == "" && !p.section.user {
			p.section.code = m[1]
		}
		if p.exception() == nil {
			p.close()
		}
		return true
	}
	list := registers(text)
	if list == nil || p.section.user {
		return isIP || list != nil
	}
	to := &p.section.registers
	if e := p.exception(); e != nil {
		to = &e.Registers
	}
	for _, r := range list {
		if len(*to) < maxRegisters {
			*to = append(*to, r)
		}
	}
	return true
}

var (
	code      = lazyregexp.New(`^(?:Krnl )?Code\s*: (.*)$`)
	interrupt = lazyregexp.New(`^--- interrupt: [0-9a-f]+ at (.*)$`) // powerpc; user space has no symbols
)

// exception returns the exception frame that is being read.
func (p *parser) exception() *Exception {
	if p.trace == nil || len(p.trace.Frames) == 0 {
		return nil
	}
	return p.trace.Frames[len(p.trace.Frames)-1].Exception
}

func (p *parser) setIP(ip *Location, user bool) {
	switch {
	case p.trace != nil && len(p.trace.Frames) > 0:
		if p.trace.Name == "" && p.section.ip == nil {
			p.section.ip, p.section.user = ip, user // the frame is another CPU's: no line began a trace
		}
		if f := &p.trace.Frames[len(p.trace.Frames)-1]; f.Exception == nil {
			f.Exception = &Exception{IP: ip, User: user}
		}
	case p.section.ip == nil || p.section.user:
		p.section.ip, p.section.user = ip, user
	case p.section.ip.Function == "" && ip != nil && ip.Function != "" && !user:
		p.section.ip = ip // the same place, with its name
	}
}

// blamedFirst moves the blamed trace to the front.
func (p *parser) blamedFirst() {
	if i := p.blamed; i > 0 {
		blamed := p.r.Traces[i]
		copy(p.r.Traces[1:i+1], p.r.Traces[:i])
		p.r.Traces[0] = blamed
	}
}

// faulting returns the section with the program counter. It is the first, unless the lines of another CPU begin a second
// between the headline of a fault and its registers.
func (p *parser) faulting() *section {
	if headline.RankOf(p.r.Headline) > headline.Complaint {
		for _, s := range p.sections {
			if s.ip != nil && !s.foreign {
				return s
			}
		}
	}
	return p.sections[0]
}

// finish puts what the sections say into the report.
func (p *parser) finish() {
	for i, s := range p.sections {
		for _, t := range s.traces {
			t.CPU, t.PID, t.Comm = s.cpu, s.pid, s.comm
			if i > 0 && !s.user {
				t.IP = s.ip
			}
			p.r.Traces = append(p.r.Traces, *t)
		}
		if !s.foreign {
			p.own = len(p.r.Traces)
		}
	}
	p.findTask()
	if s := p.faulting(); !s.user {
		p.r.IP, p.r.LR, p.r.Registers, p.r.Code = s.ip, s.lr, s.registers, s.code
	}
}
