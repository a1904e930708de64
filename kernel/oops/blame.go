package oops

import (
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// culprit is the place that a title names.
type culprit struct {
	Location
	as string // the name in the title, if it is not the function's
}

// blame chooses the place that a title names, nil if the log names none.
type blame func(p *parser, s shape, head string) *culprit

// nobody is for reports whose place says nothing.
func nobody(*parser, shape, string) *culprit { return nil }

// fault blames where the fault was, or, if that is in a helper or in no function, its caller.
func fault(p *parser, s shape, head string) *culprit {
	places := p.faultPlaces()
	l := inHeadline(head)
	switch {
	case p.r.IP != nil && p.r.IP.Function != "":
		l = p.r.IP
	case l != nil:
		places = append([]Location{*l}, places...)
	}
	if c := top(places, s.skip); c != nil {
		return c
	}
	return only(l, s.skip)
}

// only blames a helper, as the log names no other place.
func only(l *Location, skip *lazyregexp.Regexp) *culprit {
	if l == nil || skip != nil && skip.MatchString(l.Function) {
		return nil
	}
	return newCulprit(*l)
}

// named blames the function of the headline, or, if that is a helper, its caller.
func named(p *parser, s shape, head string) *culprit {
	places := p.callers()
	l := inHeadline(head)
	if l != nil {
		places = append([]Location{*l}, places...)
	}
	if c := top(places, s.skip); c != nil {
		return c
	}
	return only(l, s.skip)
}

// namedFirst is named for reports whose first trace is that of the fault.
func namedFirst(p *parser, s shape, head string) *culprit {
	places := p.placesOf(0)
	if l := inHeadline(head); l != nil {
		places = append([]Location{*l}, places...)
	}
	return top(places, s.skip)
}

// first blames the first frame of the first trace that is no helper.
func first(p *parser, s shape, head string) *culprit {
	if c := top(p.placesOf(0), s.skip); c != nil {
		return c
	}
	return only(inHeadline(head), s.skip)
}

// frames blames the first frame of the call trace that is no helper.
func frames(p *parser, s shape, head string) *culprit {
	if c := top(p.callers(), s.skip); c != nil {
		return c
	}
	if l := inHeadline(head); l != nil {
		return top([]Location{*l}, s.skip)
	}
	return nil
}

// locks blames where the lock was taken that lockdep complains of.
func locks(p *parser, s shape, _ string) *culprit {
	return top(slices.Concat(p.held, p.callers()), s.skip)
}

// taken blames where the lock was taken that lockdep names first.
func taken(p *parser, s shape, _ string) *culprit {
	return top(slices.Concat(p.held[:min(1, len(p.held))], p.callers()), s.skip)
}

// unlock blames where the lock was released, which lockdep prints as a trace of one frame. Another CPU's trace may come first.
func unlock(p *parser, s shape, _ string) *culprit {
	released := slices.IndexFunc(p.r.Traces[:p.own], func(t Trace) bool { return strings.Contains(t.Name, "is trying to release lock") })
	places := slices.Concat(p.placesOf(max(0, released)), p.callers())
	return top(places, s.skip)
}

// pageOwner blames who allocated the page, if the kernel keeps owners.
func pageOwner(p *parser, s shape, _ string) *culprit {
	for i, t := range p.r.Traces[:p.own] {
		if strings.HasPrefix(t.Name, "page last allocated") {
			return top(p.placesOf(i), s.skip)
		}
	}
	return nil
}

// lastFunction blames the function that a line names which a worker ran, or runs.
func lastFunction(p *parser, _ shape, _ string) *culprit {
	if p.last == "" {
		return nil
	}
	return &culprit{Location: Location{Function: p.last}}
}

// stall blames an entry point of the code that loops: where a loop is interrupted depends on chance.
func stall(p *parser, s shape, _ string) *culprit {
	return entry(p.faultPlaces(), s.skip)
}

// rcuStall is stall for the code that the timer interrupted.
func rcuStall(p *parser, s shape, _ string) *culprit {
	for i, t := range p.r.Traces[:p.own] {
		if list := wanted(t.interrupted(), s.skip); len(list) > 0 {
			p.blamed = i
			return entry(list, nil)
		}
	}
	if p.r.IP != nil {
		return entry(p.faultPlaces(), s.skip)
	}
	for i, t := range p.r.Traces[:p.own] {
		if strings.HasPrefix(t.Comm, "rcu_") {
			continue // the kernel prints the trace of RCU's own thread too
		}
		places := p.placesOf(i)
		if t.IP != nil {
			places = append([]Location{*t.IP}, places...)
		}
		if c := entry(places, s.skip); c != nil {
			return c
		}
	}
	return nil
}

// hung blames the function that waits.
func hung(p *parser, s shape, _ string) *culprit {
	places := wanted(p.callers(), nil)
	for _, l := range places {
		if as := CommonWait(l.Function); as != "" {
			return &culprit{Location: l, as: as}
		}
	}
	return top(places, waits)
}

// faultPlaces are where the fault was, and its callers.
func (p *parser) faultPlaces() []Location {
	places := p.callers()
	if ip := p.r.IP; ip != nil && ip.Function != "" {
		return append([]Location{*ip}, places...)
	}
	if lr := p.r.LR; lr != nil && len(places) == 0 {
		return []Location{*lr}
	}
	return places
}

// callers are the proved frames of the call trace: the first of the task that the report is about, or the first. Some
// reports have other traces before it: lockdep says where a lock was taken.
func (p *parser) callers() []Location {
	first := -1
	for i, t := range p.r.Traces[:p.own] {
		switch {
		case !callTrace.MatchString(t.Name):
		case t.PID != nil && p.r.PID != nil && *t.PID == *p.r.PID:
			return p.placesOf(i)
		case first < 0:
			first = i
		}
	}
	if first >= 0 {
		return p.placesOf(first)
	}
	if p.own > 0 && strings.HasPrefix(p.r.Traces[0].Name, "Preemption disabled at") {
		return nil
	}
	return p.placesOf(0)
}

// callTrace is the line before a call trace; each machine has its own.
var callTrace = lazyregexp.New(`^(?:Call [Tt]race|Backtrace|Trace)\b`)

// placesOf are the proved frames of one trace, which becomes the blamed one.
func (p *parser) placesOf(trace int) []Location {
	if trace >= p.own {
		return nil
	}
	p.blamed = trace
	return p.r.Traces[trace].Places()
}

// Places are the functions of the proved frames of a trace, and of the places of exceptions between them.
func (t *Trace) Places() []Location {
	var list []Location
	for _, f := range t.Frames {
		if !f.Unreliable && f.Function != "" {
			list = append(list, f.Location)
		}
		if e := f.Exception; e != nil && !e.User && e.IP != nil && e.IP.Function != "" {
			list = append(list, *e.IP)
		}
	}
	return list
}

// interrupted are the places of a trace below the interrupt of a timer, nil if there is none.
func (t *Trace) interrupted() []Location {
	places := t.Places()
	for i, l := range places {
		if timerEntry.MatchString(l.Function) {
			return places[i+1:]
		}
	}
	return nil
}

// timerEntry is the entry of an interrupt: x86, arm64.
var timerEntry = lazyregexp.New(`apic_timer_interrupt|^el1h_64_irq$|^el1_irq$|^__irq_svc$`)

// inHeadline returns the place that a headline names: "in foo+0x1/0x2", "at file:1 foo+0x1/0x2", "in: foo+0x1/0x2".
func inHeadline(head string) *Location {
	if m := symbol.FindStringSubmatch(head); m != nil {
		return newLocation("", m[1:])
	}
	if m := decodedFunc.FindStringSubmatch(head); m != nil {
		return &Location{Function: m[1]}
	}
	return nil
}

// wanted leaves out helpers and the functions that match skip.
func wanted(places []Location, skip *lazyregexp.Regexp) []Location {
	var list []Location
	for _, l := range places {
		if name := baseName(l.Function); name != "" && !isHelper(name) && (skip == nil || !skip.MatchString(name)) {
			list = append(list, l)
		}
	}
	return list
}

// top returns the first wanted place.
func top(places []Location, skip *lazyregexp.Regexp) *culprit {
	list := wanted(places, skip)
	if len(list) == 0 {
		return nil
	}
	return newCulprit(list[0])
}

func newCulprit(l Location) *culprit {
	return &culprit{Location: l, as: plainName(baseName(l.Function))}
}

// entry returns the last wanted place above a function that dispatches work.
func entry(places []Location, skip *lazyregexp.Regexp) *culprit {
	list := wanted(places, skip)
	for i, l := range list {
		name := plainName(baseName(l.Function))
		if !dispatches.MatchString(name) {
			continue
		}
		switch {
		case strings.Contains(name, "smp_call_function"):
			return &culprit{Location: l, as: "smp_call_function"}
		case i > 0:
			return newCulprit(list[i-1])
		}
		return newCulprit(l)
	}
	return top(list, nil)
}

// syscallPrefixes are what wrappers of system calls put before the name (include/linux/syscalls.h).
var syscallPrefixes = []string{
	"compat_SYSC_", "compat_SyS_", "__do_sys_", "__se_sys_", "____sys_", "___sys_", "__arm64_", "__ia32_", "__x64_",
	"__sys_", "ksys_", "SYSC_", "SyS_", "__se_", "sys_",
}

// PlainName is the name of a function without what differs between compilers and machines: suffixes of clones, as in foo.isra.0.cold,
// and all prefixes of system calls.
func PlainName(function string) string {
	name := baseName(function)
	for plain := plainName(name); plain != name && plain != ""; plain = plainName(name) {
		name = plain
	}
	return name
}

// plainName is the name of a function without a prefix of system calls, so that all machines have the same titles.
func plainName(name string) string {
	shortest := name
	for _, prefix := range syscallPrefixes {
		if rest, ok := strings.CutPrefix(name, prefix); ok && len(rest) < len(shortest) {
			shortest = rest
		}
	}
	return shortest
}
