package unwind

import (
	"debug/elf"
	"fmt"
	"slices"

	"github.com/corehaul/corehaul/mem"
)

// Addresses of x86_64 at which code is made at run time: the area of modules, which begins behind the kernel image
// (MODULES_VADDR and MODULES_END in arch/x86/include/asm/pgtable_64_types.h, of a kernel without KASLR).
const (
	x86ModulesStart = mem.VirtAddr(0xffffffffa0000000)
	x86ModulesEnd   = mem.VirtAddr(0xffffffffff000000)
)

// madeAtRunTime reports whether address a may be that of code without ORC. With KASLR the kernel image may reach into the area of
// modules of a kernel without.
func (u *Unwinder) madeAtRunTime(a mem.VirtAddr) bool {
	return x86ModulesStart <= a && u.imageEnd <= a && a < x86ModulesEnd
}

var (
	// nullORC is for a call through a null pointer: nothing but the return address is on the stack (null_orc_entry).
	nullORC = orcEntry{spReg: orcSP, spOffset: wordSize, kind: kindCall}
	// framePointerORC is for code without ORC that begins with "push %rbp; mov %rsp,%rbp" (orc_fp_entry).
	framePointerORC = orcEntry{spReg: orcBP, spOffset: 2 * wordSize, bpReg: orcPrevSP, bpOffset: -2 * wordSize, kind: kindCall}
)

// stepORC moves s to the frame before: unwind_next_frame in arch/x86/kernel/unwind_orc.c.
func (u *Unwinder) stepORC(s *state) error {
	e, method, err := u.entryFor(s)
	if err != nil {
		return err
	}
	switch e.kind {
	case kindUndefined:
		err := u.stepToCallSite(s)
		if err == nil || s.frame.Return || !u.isReturn(s.sp) {
			return err
		}
		// The data of a module, behind its code, was called.
		e, method = nullORC, FromGuess
	case kindEnd:
		return errEnd("end of stack")
	}
	s.guessed = s.guessed || method == FromGuess
	sp, err := u.previousSP(s, e)
	if err != nil {
		return err
	}
	fp := s.fp
	if err := u.takeFrame(s, e.kind, sp, method); err != nil {
		return err
	}
	return u.takeBP(s, e, sp, fp)
}

// entryFor returns the entry that describes the frame of s. A call may be the last instruction of a function, so for a return
// address it is that of the call.
func (u *Unwinder) entryFor(s *state) (orcEntry, Method, error) {
	if s.ip == 0 {
		return nullORC, FromORC, nil
	}
	at := s.ip
	if s.frame.Return {
		at--
	}
	if copied, ok := u.ftraceOrigin(s); ok {
		at = copied
	}
	e, ok, err := u.orcAt(at)
	switch {
	case err != nil || ok:
		return e, FromORC, err
	case s.frame.Return && u.sources.Generated != nil && u.sources.Generated.KeepsFramePointer(at):
		return framePointerORC, FromBPF, nil
	case !s.frame.Return && u.isReturn(s.sp):
		return nullORC, FromGuess, nil
	case u.madeAtRunTime(s.ip):
		return framePointerORC, FromFramePointer, nil
	default:
		return e, "", fmt.Errorf("%v is in no code that ORC knows", s.ip)
	}
}

// isReturn reports whether a return address lies at sp, as after a call through a wild pointer.
func (u *Unwinder) isReturn(sp mem.VirtAddr) bool {
	ip, err := u.word(sp)
	return err == nil && u.isCode(ip) && u.followsCall(ip)
}

// previousSP returns the stack pointer of the frame before, or for an interrupted one where its registers lie.
func (u *Unwinder) previousSP(s *state, e orcEntry) (mem.VirtAddr, error) {
	offset := mem.VirtAddr(e.spOffset) //nolint:gosec // modulo 2^64
	switch e.spReg {
	case orcSP:
		return s.sp + offset, nil
	case orcBP:
		return s.fp + offset, nil
	case orcSPIndirect:
		sp, err := u.word(s.sp)
		return sp + offset, err
	case orcBPIndirect:
		return u.word(s.fp + offset)
	}
	places := map[orcReg]int{orcAX: x86AX, orcDX: x86DX, orcDI: x86DI, orcR10: x86R10, orcR13: x86R13}
	place, ok := places[e.spReg]
	if !ok {
		return 0, fmt.Errorf("the ORC entry for %v has no register that is known", s.ip)
	}
	value, ok := s.value(place)
	if !ok {
		return 0, fmt.Errorf("the frame before %v is known from register %s, which is not known", s.ip, x86Names[place])
	}
	return mem.VirtAddr(value), nil
}

// value returns a register of the frame: get_reg in unwind_orc.c.
func (s *state) value(place int) (uint64, bool) {
	if s.regs != nil && s.regs.First > place {
		return s.prevRegs.value(place)
	}
	return s.regs.value(place)
}

// takeFrame moves s to the frame whose stack pointer, or whose registers, are at sp.
func (u *Unwinder) takeFrame(s *state, kind orcKind, sp mem.VirtAddr, method Method) error {
	if kind == kindCall {
		at := sp - wordSize
		ip, err := u.word(at)
		if err != nil {
			return err
		}
		if !u.isCode(ip) && !u.madeAtRunTime(ip) {
			return fmt.Errorf("the return address %v at %v is in no code", ip, at)
		}
		s.ip, s.sp, s.regs, s.prevRegs = ip, sp, nil, nil
		s.frame = Frame{IP: ip, Return: true, SP: sp, At: at, Found: method}
		return nil
	}
	first := 0
	if kind == kindIRet {
		first = x86IP
	}
	regs, err := u.readRegs(sp, first)
	if err != nil {
		return err
	}
	s.prevRegs = nil
	if first > 0 && s.regs != nil && s.regs.First == 0 {
		s.prevRegs = s.regs
	}
	s.ip, s.sp, s.regs = regs.IP(), regs.SP(), regs
	at := sp + mem.VirtAddr(x86IP-first)*wordSize
	s.frame = Frame{IP: s.ip, SP: s.sp, At: at, Found: FromRegisters, Regs: regs}
	return nil
}

// readRegs reads the registers from one on, which lies at sp.
func (u *Unwinder) readRegs(sp mem.VirtAddr, first int) (*Registers, error) {
	r := &Registers{Machine: elf.EM_X86_64, Values: make([]uint64, x86Count), First: first}
	for i := first; i < x86Count; i++ {
		v, err := u.word(sp + mem.VirtAddr(i-first)*wordSize) //nolint:gosec // i is not less than first
		if err != nil {
			return nil, err
		}
		r.Values[i] = uint64(v)
	}
	return r, nil
}

// takeBP sets the frame pointer of the frame to which s was moved. fp was that of the frame after it.
func (u *Unwinder) takeBP(s *state, e orcEntry, sp, fp mem.VirtAddr) (err error) {
	offset := mem.VirtAddr(e.bpOffset) //nolint:gosec // modulo 2^64
	switch e.bpReg {
	case orcUndefined:
		if bp, ok := s.value(x86BP); ok {
			s.fp = mem.VirtAddr(bp)
		}
	case orcPrevSP:
		s.fp, err = u.word(sp + offset)
	case orcBP:
		s.fp, err = u.word(fp + offset)
	default:
		err = fmt.Errorf("an ORC entry after %v has rbp in no way that is known", s.ip)
	}
	return err
}

// readInactiveFrame reads what __switch_to_asm pushed (struct inactive_task_frame in arch/x86/include/asm/switch_to.h): r15,
// r14, r13, r12, rbx, rbp and the return address. That of a task that has not run yet is the start of a function. From 5.1
// ("sched/x86: Save [ER]FLAGS on context switch") to 5.9, and in older kernels with that change, the flags lie before r15.
func (u *Unwinder) readInactiveFrame(s *state) (err error) {
	const plainIP, flagsIP = 6 * wordSize, 7 * wordSize
	at := s.sp + plainIP
	if s.ip, err = u.word(at); err != nil {
		return err
	}
	if !u.isCode(s.ip) {
		at = s.sp + flagsIP
		if s.ip, err = u.word(at); err != nil {
			return err
		}
	}
	if !u.isCode(s.ip) {
		return fmt.Errorf("no return address is at %v or before it, where a switch of tasks leaves one", at)
	}
	if s.fp, err = u.word(at - wordSize); err != nil {
		return err
	}
	s.sp = at + wordSize
	s.frame = Frame{IP: s.ip, Return: !slices.Contains(u.forks, s.ip), SP: s.sp, At: at, Found: FromRegisters}
	return nil
}
