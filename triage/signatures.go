package triage

import (
	"github.com/corehaul/corehaul/kernel/signature"
)

// signMemory makes the signature of the stacks in memory. It does not depend on the log where memory itself shows which task crashed, so a
// dump without a readable log has the same.
func (r *Report) signMemory(m *Memory) {
	if len(r.Backtraces) == 0 || r.Backtraces[0].CPU != m.CrashedCPU() {
		return
	}
	panicked, crashed := &r.Backtraces[0], r.Crashed()
	switch said := r.Log; {
	case said == nil && len(r.Blocked) == 1:
		crashed = &r.Blocked[0] // if a task hung, it is this one
		if s := signature.OfStacks(places(panicked), nil); s != nil {
			r.Signatures.Memory = s
			return
		}
	case said == nil:
		crashed = nil
	case crashed == panicked:
		crashed = nil
	case crashed == nil && (said.PID != nil && *said.PID != panicked.PID || said.CPU != nil && *said.CPU != panicked.CPU):
		return // the log is about a task that is gone
	}
	s := signature.OfStacks(places(panicked), places(crashed))
	if log := r.Signatures.Log; s == nil || log != nil && !log.Vague && log.Class() != s.Class() {
		return // the machine survived what the log names, and panicked for something else
	}
	r.Signatures.Memory = s
}

// places are the proved functions of a stack, down to user mode. A stack that is nil has none.
func places(b *Backtrace) (list []signature.Place) {
	if b == nil {
		return nil
	}
	for i := range b.Frames {
		f := &b.Frames[i]
		if f.User {
			break
		}
		if f.Proved() {
			list = append(list, signature.Place{Function: f.Function, Module: f.Module})
		}
	}
	return list
}
