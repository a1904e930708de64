package unwind

import (
	"bytes"

	"github.com/corehaul/corehaul/mem"
)

// A function that ftrace traces for one user alone calls a trampoline of its own: a copy of ftrace_caller or
// ftrace_regs_caller (create_trampoline in arch/x86/kernel/ftrace.c). The kernel takes the ORC of the original for it
// (orc_ftrace_find). Only the call in the middle and a pointer differ, so a trampoline is known by its first bytes.

const (
	ftraceSame = 32       // bytes at the start that are compared; the saving of registers takes far more
	ftraceMax  = 64 << 10 // bytes from the start to the call, far more than there are
)

// ftraceOrigin returns the address in the kernel image whose ORC holds for s, if s is in the call of a trampoline.
func (u *Unwinder) ftraceOrigin(s *state) (mem.VirtAddr, bool) {
	if !s.frame.Return || !u.madeAtRunTime(s.ip) || u.isBuilt(s.ip) {
		return 0, false
	}
	for _, names := range [][2]string{{"ftrace_regs_caller", "ftrace_regs_call"}, {"ftrace_caller", "ftrace_call"}} {
		start, ok1 := u.symbols.Address(names[0])
		call, ok2 := u.symbols.Address(names[1])
		if !ok1 || !ok2 || call <= start || call-start > ftraceMax {
			continue
		}
		if u.sameCode(start, s.ip-callLen-(call-start)) {
			return call, true
		}
	}
	return 0, false
}

// sameCode reports whether two places have the same code.
func (u *Unwinder) sameCode(a, b mem.VirtAddr) bool {
	var one, two [ftraceSame]byte
	return u.kernel.ReadVirt(one[:], a) == nil && u.kernel.ReadVirt(two[:], b) == nil && bytes.Equal(one[:], two[:])
}
