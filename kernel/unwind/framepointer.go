package unwind

import (
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// stepFramePointer moves s to the frame before in a kernel that keeps frame pointers: rbp leads to the rbp of that frame, with
// the return address behind it. Entry code marks a pt_regs by a set lowest bit (ENCODE_FRAME_POINTER in
// arch/x86/include/asm/frame.h).
func (u *Unwinder) stepFramePointer(s *state) error {
	const marked = 1
	if s.fp == 0 && s.frame.Found == FromFramePointer {
		return errEnd("end of stack")
	}
	if s.fp == 0 { // a kernel that has ORC, but no symbols for it, uses rbp for anything
		return errors.New("the frame pointer is 0, and the kernel has no ORC tables that can be found")
	}
	if s.fp&marked != 0 {
		return u.takeMarkedRegs(s, s.fp&^marked)
	}
	fp, err := u.word(s.fp)
	if err != nil {
		return err
	}
	at := s.fp + wordSize
	ip, err := u.word(at)
	if err != nil {
		return err
	}
	if !u.isCode(ip) || !u.followsCall(ip) {
		return fmt.Errorf("no return address is at %v, and the kernel has no ORC tables", at)
	}
	s.ip, s.sp, s.fp, s.regs = ip, at+wordSize, fp, nil
	s.frame = Frame{IP: ip, Return: true, SP: s.sp, At: at, Found: FromFramePointer}
	return nil
}

// takeMarkedRegs moves s to the frame whose registers are at an address. Kernel threads have empty ones at the end of their
// stacks.
func (u *Unwinder) takeMarkedRegs(s *state, at mem.VirtAddr) error {
	regs, err := u.readRegs(at, 0)
	if err != nil {
		return err
	}
	if regs.IP() == 0 && !regs.User() && regs.Values[x86CS] == 0 {
		return errEnd("end of stack")
	}
	s.ip, s.sp, s.fp, s.regs = regs.IP(), regs.SP(), regs.FP(), regs
	s.frame = Frame{IP: s.ip, SP: s.sp, At: at + x86IP*wordSize, Found: FromRegisters, Regs: regs}
	return nil
}
