package oops

import (
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// who reads the lines that name the machine, a CPU or a task.
func (p *parser) who(text string) bool {
	if m := cpuLine.FindStringSubmatch(text); m != nil {
		p.introduce()
		p.section.cpu, p.section.pid, p.section.comm = number(m[1]), number(m[2]), m[3]
		p.taint(m[4])
		p.release(m[5], m[6])
		return true
	}
	if m := oldCPULine.FindStringSubmatch(text); m != nil { // before 3.9
		p.introduce()
		p.section.pid, p.section.comm = number(m[1]), m[2]
		p.taint(m[3])
		p.release(m[4], m[5])
		return true
	}
	if m := taintLine.FindStringSubmatch(text); m != nil {
		p.taint(m[1])
		p.release(m[2], m[3])
		return true
	}
	if m := hardwareLine.FindStringSubmatch(text); m != nil {
		set(&p.r.Hardware, strings.TrimSpace(m[1]))
		return true
	}
	if m := nmiLine.FindStringSubmatch(text); m != nil {
		p.introduce()
		p.section.cpu = number(m[1])
		p.section.introduced = false // the line of its CPU follows
		return true
	}
	return p.task(text)
}

// task reads the lines that name a task only.
func (p *parser) task(text string) bool {
	if m := taskLine.FindStringSubmatch(text); m != nil {
		p.introduce()
		p.section.comm, p.section.pid = m[1], number(m[2])
		return true
	}
	if m := lockTask.FindStringSubmatch(text); m != nil && !p.foreign {
		p.accuse(m[1], number(m[2]))
		return false // it may begin a trace
	}
	comm, pid := "", ""
	if m := processLine.FindStringSubmatch(text); m != nil {
		comm, pid = m[1], m[2]
	} else if m := powerTask.FindStringSubmatch(text); m != nil {
		comm, pid = m[2], m[1]
	}
	if pid != "" && p.section.pid == nil {
		p.section.comm, p.section.pid = comm, number(pid)
	}
	return pid != ""
}

// accuse takes the task that the report says it is about.
func (p *parser) accuse(comm string, pid *int) {
	if p.accusedPID == nil {
		p.accusedComm, p.accusedPID = comm, pid
	}
}

// findTask sets the report's CPU and task: those of the task that it is about, or the first that are named. Another CPU may
// answer in between, and the thread that finds a hung task prints its own trace.
func (p *parser) findTask() {
	r := p.r
	for _, s := range p.sections {
		accused := p.accusedPID == nil || s.pid != nil && *s.pid == *p.accusedPID
		if !s.foreign && accused && (s.cpu != nil || s.pid != nil) { // lockdep prints traces before its own
			r.CPU, r.PID, r.Comm = s.cpu, s.pid, s.comm
			return
		}
	}
	if p.accusedPID != nil || p.accusedCPU != nil {
		r.CPU, r.PID, r.Comm = p.accusedCPU, p.accusedPID, p.accusedComm
	}
}

// introduce begins a section, unless the current one has nothing of a CPU yet.
func (p *parser) introduce() {
	if s := p.section; s.introduced || len(s.traces) > 0 {
		p.newSection()
	}
	p.close()
	p.section.introduced = true
}

var (
	// cpuLine is dump_stack_print_info() in lib/dump_stack.c. UID came with 6.12.
	// The release begins with a letter or digit and has a small letter or a digit behind it, other than letters of taints.
	cpuLine = lazyregexp.New(`^CPU: (\d{1,5}) (?:UID: \d+ )?PID: (\d{1,9}) Comm: (.{0,20}?) (?:Kdump: loaded )?(Not tainted|Tainted: [A-Za-z -]+?) +([0-9A-Za-z]\S*[0-9a-z]\S*) ?(.*)$`)
	// oldCPULine is the same before 3.9 (196779b9b4ce).
	oldCPULine = lazyregexp.New(`^Pid: (\d{1,9}), comm: (.{0,20}?) (Not tainted|Tainted: [A-Za-z -]+?) +(\d+\.\S+) ?(.*)$`)
	// taskLine is sched_show_task() in kernel/sched/core.c since 5.11.
	taskLine = lazyregexp.New(`^task:(.{1,20}?) +state:.* pid: *(\d{1,9}) `)
	// taintLine is the second line of a hung task (kernel/hung_task.c).
	taintLine = lazyregexp.New(`^ {6}(Not tainted|Tainted: [A-Za-z -]+?) +(\d+\.\S+) ?(.*)$`)
	// processLine is that of old kernels and of arm, mips, sparc.
	processLine = lazyregexp.New(`^Process (.{1,20}?) \(pid: (\d{1,9}),`)
	// powerTask is that of 32-bit powerpc until 4.8 (arch/powerpc/kernel/process.c, show_regs).
	powerTask = lazyregexp.New(`^TASK = [0-9a-f]{8,16}\[(\d{1,9})\] '(.{1,16}?)' `)
	// lockTask is the task of lockdep's reports (kernel/locking/lockdep.c).
	lockTask = lazyregexp.New(`^(\S.{0,15})/(\d{1,9}) (?:is trying to (?:acquire|release)|is freeing memory |just changed the state of |\[HC\d)`)
	// hardwareLine is dump_stack_print_info() in lib/dump_stack.c.
	hardwareLine = lazyregexp.New(`^Hardware name: (.*)$`)
	nmiLine      = lazyregexp.New(`^NMI backtrace for cpu (\d{1,5})$`) // lib/nmi_backtrace.c
)

// number returns a number that fits an int.
func number(s string) *int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return nil
	}
	return &n
}

func (p *parser) taint(s string) {
	if p.r.Taint == nil {
		letters, _ := strings.CutPrefix(s, "Tainted: ")
		p.r.Taint = newTaint(strings.TrimPrefix(letters, "Not tainted"))
	}
}

func (p *parser) release(release, version string) {
	if p.r.Release == "" {
		p.r.Release, p.r.Version = release, strings.TrimSpace(version)
	}
}

// banner takes the first line of the kernel's log (init/version.c).
func (p *parser) banner(text string) {
	if m := banner.FindStringSubmatch(text); m != nil {
		p.release(m[1], m[2])
	}
}

// banner has the release, who compiled the kernel and how, and the version.
var banner = lazyregexp.New(`^Linux version (\S+)(?: .*\) (#\d.*)| .*)?$`)

// headline takes CPU and task from the headline.
func (p *parser) headline() {
	for _, h := range whoHeadlines {
		m := h.FindStringSubmatch(p.r.Headline)
		if m == nil {
			continue
		}
		group := func(name string) string {
			if i := h.SubexpIndex(name); i >= 0 {
				return m[i]
			}
			return ""
		}
		p.accusedCPU = number(group("cpu"))
		p.accuse(group("comm"), number(group("pid")))
		return
	}
}

// whoHeadlines are headlines with a CPU or task: kernel/watchdog.c, kernel/hung_task.c, kernel/panic.c,
// kernel/sched/core.c, kernel/locking/spinlock_debug.c, mm/page_alloc.c.
var whoHeadlines = []*lazyregexp.Regexp{
	lazyregexp.New(`BUG: soft lockup - CPU#(?P<cpu>\d+) stuck for .* \[(?P<comm>.*):(?P<pid>\d+)\]`),
	lazyregexp.New(`(?i)hard LOCKUP on cpu (?P<cpu>\d+)`),
	lazyregexp.New(`^INFO: task (?P<comm>.*):(?P<pid>\d+) (?:blocked|can't die|is blocked) `),
	lazyregexp.New(`^WARNING: CPU: (?P<cpu>\d+) PID: (?P<pid>\d+) at `),
	lazyregexp.New(`^WARNING: .*, CPU#(?P<cpu>\d+): (?P<comm>.*)/(?P<pid>\d+)$`),
	lazyregexp.New(`^BUG: (?:scheduling while atomic|using .* code): (?P<comm>.*)/(?P<pid>\d+)(?:/0x[0-9a-f]+)?$`),
	lazyregexp.New(`^BUG: (?:spinlock|rwlock) .* on CPU#(?P<cpu>\d+), (?P<comm>.*)/(?P<pid>\d+)`),
}
