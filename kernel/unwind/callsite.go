package unwind

import (
	"encoding/binary"
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// A few C functions have no ORC. One of them matters: __crash_kexec (STACK_FRAME_NON_STANDARD in kernel/kexec_core.c) saves
// the registers of the CPU that panicked, so its stack starts there. Their callers are found by the code: a return
// address on the stack whose call instruction calls this very function.

const (
	maxCallSiteWords = 256 // of the frame of such a function: struct pt_regs takes 21, and an unwinding loop must end
	callLen          = 5   // bytes of "call rel32"
	callOpcode       = 0xe8
	maxPrologue      = 32 // bytes in which registers are pushed
)

// stepToCallSite moves s to the caller of a function without ORC.
func (u *Unwinder) stepToCallSite(s *state) error {
	in := s.ip
	if s.frame.Return {
		in-- // a call that never returns can be the last instruction of its function
	}
	function, ok := u.symbols.Find(in)
	if !ok {
		return fmt.Errorf("ORC knows nothing of the frame before %v", s.ip)
	}
	for at := s.sp; at < s.sp+maxCallSiteWords*wordSize; at += wordSize {
		ip, err := u.word(at)
		if err != nil {
			return err
		}
		if u.isCode(ip) && u.callTarget(ip-callLen) == function.Addr {
			if depth := u.pushedRBP(function.Addr); depth > 0 {
				if s.fp, err = u.word(at - depth*wordSize); err != nil {
					return err
				}
			}
			s.ip, s.sp, s.regs, s.prevRegs = ip, at+wordSize, nil, nil
			s.frame = Frame{IP: ip, Return: true, SP: s.sp, At: at, Found: FromCallSite}
			return nil
		}
	}
	return fmt.Errorf("ORC knows nothing of the frame before %v, and no call of %s is on its stack", s.ip, function.Name)
}

// callTarget returns what the instruction at a calls directly, or 0.
func (u *Unwinder) callTarget(a mem.VirtAddr) mem.VirtAddr {
	var b [callLen]byte
	if u.kernel.ReadVirt(b[:], a) != nil || b[0] != callOpcode {
		return 0
	}
	return a + callLen + mem.VirtAddr(int64(int32(binary.LittleEndian.Uint32(b[1:])))) //nolint:gosec // s32, with its sign
}

// followsCall reports whether a call instruction ends at a: a direct one, or one through a register or memory.
func (u *Unwinder) followsCall(a mem.VirtAddr) bool {
	const (
		longest    = 7    // bytes of "call *disp32(base,index,scale)"
		groupFive  = 0xff // opcode of indirect calls
		callInFive = 2    // the middle 3 bits of the byte behind it
	)
	var b [longest]byte
	if u.kernel.ReadVirt(b[:], a-longest) != nil {
		return false
	}
	if b[longest-callLen] == callOpcode {
		return true
	}
	for _, n := range []int{2, 3, 4, 6, 7} {
		if b[longest-n] == groupFive && b[longest-n+1]>>3&7 == callInFive {
			return true
		}
	}
	return false
}

// pushedRBP returns how many words below its return address a function pushes rbp, by the pushes that it begins with; 0 if
// rbp is not among them.
func (u *Unwinder) pushedRBP(function mem.VirtAddr) (depth mem.VirtAddr) {
	const (
		pushFirst, pushLast = 0x50, 0x57 // push %rax to push %rdi
		pushRBP             = 0x55
		rexB                = 0x41 // with it, push %r8 to push %r15
	)
	b := make([]byte, maxPrologue)
	if u.kernel.ReadVirt(b, function) != nil {
		return 0
	}
	b = skipEntry(b)
	for len(b) >= 2 {
		wide := b[0] == rexB
		if wide {
			b = b[1:]
		}
		if b[0] < pushFirst || b[0] > pushLast {
			return 0
		}
		depth++
		if b[0] == pushRBP && !wide {
			return depth
		}
		b = b[1:]
	}
	return 0
}

// skipEntry skips what a function has before its own code: endbr64, and a call of the function tracer or a nop in its place.
func skipEntry(b []byte) []byte {
	const endbr64, nop5 = "\xf3\x0f\x1e\xfa", "\x0f\x1f\x44\x00\x00"
	if string(b[:len(endbr64)]) == endbr64 {
		b = b[len(endbr64):]
	}
	if string(b[:callLen]) == nop5 || b[0] == callOpcode {
		b = b[callLen:]
	}
	return b
}
