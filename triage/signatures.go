package triage

import (
	"strconv"

	"github.com/corehaul/corehaul/kernel/signature"
	"github.com/corehaul/corehaul/mem"
)

// signMemory makes the signature of the stacks in memory. It does not depend on the log where memory itself shows which task crashed, so a
// dump without a readable log has the same.
func (r *Report) signMemory(m *Memory) {
	if len(r.Backtraces) == 0 || r.Backtraces[0].CPU != m.panicCPU() {
		return // it is not known that this CPU stopped the machine
	}
	panicked, crashed := &r.Backtraces[0], r.Crashed()
	switch said := r.Log; {
	case crashed == panicked:
		crashed = nil
	case crashed == nil && said != nil && (said.PID != nil && *said.PID != panicked.PID || said.CPU != nil && *said.CPU != panicked.CPU):
		return // the log is about a task that is gone
	case said == nil && len(r.Blocked) == 1 && m.sign(panicked, nil) == nil:
		crashed = &r.Blocked[0] // if a task hung, it is this one
	}
	s, log := m.sign(panicked, crashed), r.Signatures.Log
	if s == nil || log != nil && !log.Vague && log.Class() != s.Class() {
		return // the machine survived what the log names, and panicked for something else
	}
	r.Signatures.Memory = s
}

// sign returns the signature of the stack that stopped the machine. crashed is that of the task which the crash is about, nil if it is the same.
func (m *Memory) sign(panicked, crashed *Backtrace) *signature.Signature {
	stack := places(panicked)
	switch {
	case signature.IsPanic(stack):
		return signature.OfStacks(stack, places(crashed))
	case crashed == nil && len(stack) > 0:
		return signature.OfFault(stack, m.k.Machine(), m.instructionAt(panicked.Frames[0].Address))
	}
	return nil
}

// instructionAt reads the bytes of the instruction at a hexadecimal address, nil if they cannot be read.
func (m *Memory) instructionAt(address string) []byte {
	at, err := strconv.ParseUint(address, 16, 64)
	if err != nil {
		return nil
	}
	for _, n := range []int{15, 4, 2} { // the next page may be missing
		code := make([]byte, n)
		if m.k.ReadVirt(code, mem.VirtAddr(at)) == nil {
			return code
		}
	}
	return nil
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
