package oops

import (
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// aboutLines are lines with facts of the report. Only the first of each kind counts.
var aboutLines = []struct {
	re   *lazyregexp.Regexp
	take func(p *parser, m []string)
}{
	{lazyregexp.New(`^Workqueue: (\S+(?: (\w+))?.*)$`), func(p *parser, m []string) {
		set(&p.r.Workqueue, strings.TrimSpace(m[1]))
		set(&p.last, m[2])
	}},
	// arch/x86/mm/fault.c, show_fault_oops
	{lazyregexp.New(`^#PF: (?:supervisor|user) (read access|write access|instruction fetch) in `), func(p *parser, m []string) {
		set(&p.r.Access, map[string]string{"read access": "read", "write access": "write"}[m[1]])
		set(&p.r.Access, "execute")
	}},
	{lazyregexp.New(`^#PF: error_code\(0x([0-9a-f]{1,16})\)`), func(p *parser, m []string) { set(&p.r.ErrorCode, m[1]) }},
	// arch/*/mm/fault.c; the oldest line of x86 is "BUG: unable to handle kernel paging request at ffff888000000000"
	{lazyregexp.New(`(?:address|address:|address at|was hit at|(?:dereference|access) on (?:read|write) at|(?:request|dereference) at) (?:0x)?([0-9a-f]{4,16})\b`), func(p *parser, m []string) {
		set(&p.r.FaultAddress, m[1])
	}},
	// die() on every machine: "Oops: 0002 [#1]", "Internal error: Oops: 0000000096000046 [#1]"; not the "sig: 11" of powerpc
	{lazyregexp.New(`^(?:.*[^g])?: (?:0x)?([0-9a-f]{1,16})(?: ilc:\d)? \[#\d+\]`), func(p *parser, m []string) { set(&p.r.ErrorCode, m[1]) }},
	{lazyregexp.New(`^\s*ESR = 0x([0-9a-f]{1,16})`), func(p *parser, m []string) { set(&p.r.ErrorCode, m[1]) }}, // arch/arm64/mm/fault.c
	// mm/kasan/report.c, print_error_description
	{lazyregexp.New(`^(Read|Write) (?:of size|at addr) .* by task (.{1,20})/(\d{1,9})$`), func(p *parser, m []string) {
		p.setAccess(m[1])
		if p.section.pid == nil {
			p.section.comm, p.section.pid = m[2], number(m[3])
		}
	}},
	{lazyregexp.New(`^(Read|Write) (?:of size|at addr) `), func(p *parser, m []string) { p.setAccess(m[1]) }},
	// kernel/workqueue.c, process_one_work
	{lazyregexp.New(`^\s+(?:last function: |preempt=.* workfn=)([\w.]+)`), func(p *parser, m []string) { set(&p.last, m[1]) }},
	// print_lock() in kernel/locking/lockdep.c
	{lazyregexp.New(`, at: (.*)$`), func(p *parser, m []string) {
		if l := location(m[1]); l != nil && len(p.held) < maxFrames {
			p.held = append(p.held, *l)
		}
	}},
}

// set sets a text that is not set.
func set(to *string, s string) { *to = either(*to, s) }

func (p *parser) setAccess(s string) {
	set(&p.access, s)
	set(&p.r.Access, strings.ToLower(s))
}

// about reads a line with a fact of the report.
func (p *parser) about(text string) bool {
	if p.foreign {
		return false
	}
	found := false
	for _, a := range aboutLines {
		if m := a.re.FindStringSubmatch(text); m != nil {
			a.take(p, m)
			found = true
		}
	}
	return found && !strings.HasSuffix(text, ":")
}

// moduleNames reads "Modules linked in:" (kernel/module/main.c, print_modules), which goes on in further lines once it
// is longer than a record.
func (p *parser) moduleNames(text string) bool {
	names, begins := strings.CutPrefix(strings.TrimSpace(text), "Modules linked in:")
	if !begins && (!p.modules || !moreModules.MatchString(names)) {
		p.modules = false
		return false
	}
	if begins {
		p.modules = len(p.r.Modules) == 0
	}
	if !p.modules {
		return true
	}
	names, last, _ := strings.Cut(names, "[last unloaded:")
	for _, word := range strings.Fields(names) {
		p.addModule(word, "")
	}
	for _, word := range strings.Fields(strings.TrimRight(last, "] ")) {
		p.addModule(word, "unloaded")
		break
	}
	return true
}

var moreModules = lazyregexp.New(`^(?:[a-z0-9_]+(?:\([A-Z+-]+\))?(?: |$))+(?:\[last unloaded: .*\])?$`)

// addModule takes "nf_tables", "evil(POE)", "new(+)".
func (p *parser) addModule(word, state string) {
	if len(p.r.Modules) >= maxModules {
		p.r.Truncated = true
		return
	}
	name, flags, _ := strings.Cut(word, "(")
	flags = strings.TrimSuffix(flags, ")")
	m := Module{Name: name, Taints: strings.Trim(flags, "+-"), State: state}
	switch {
	case strings.HasSuffix(flags, "+"):
		m.State = "loading"
	case strings.HasSuffix(flags, "-"):
		m.State = "unloading"
	}
	p.r.Modules = append(p.r.Modules, m)
}
