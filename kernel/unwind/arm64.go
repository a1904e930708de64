package unwind

import (
	"debug/elf"
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// Types of struct frame_record_meta (arch/arm64/include/asm/stacktrace/frame.h, since 6.13: c2c6b27b5aa1, "arm64: stacktrace:
// unwind exception boundaries").
const (
	metaFinal = 1 // FRAME_META_TYPE_FINAL
	metaRegs  = 2 // FRAME_META_TYPE_PT_REGS
)

// Where in struct pt_regs the frame record is (arch/arm64/include/asm/ptrace.h): with a type since 6.13, and before.
const (
	typedRecord = 296
	plainRecord = 304
)

const (
	userBits   = 55                       // of addresses; bit 55 selects the kernel's half
	kernelHalf = mem.VirtAddr(0xff << 56) // all kernel addresses of at most 52 bits lie above
)

// setupARM64 finds which bits a signed return address has for itself.
func (u *Unwinder) setupARM64() {
	if mask, ok := u.kernel.Info().Number("KERNELPACMASK"); ok {
		u.pacMask = uint64(mask) //nolint:gosec // a mask
	}
}

// plain removes the signature of a return address: ptrauth_strip_kernel_insn_pac. It reports false for what is no address of the
// kernel: a signature leaves bit 55 alone.
func (u *Unwinder) plain(a mem.VirtAddr) (mem.VirtAddr, bool) {
	ip := a | mem.VirtAddr(u.pacMask)
	return ip, a>>userBits&1 == 1 && ip >= kernelHalf
}

// stepARM64 moves s to the frame before. A frame record has the frame pointer of that frame and the return address into it
// (AAPCS64). In pt_regs lies a record too, so that the chain leads through an exception: before 6.13 it is the record of the
// interrupted frame, since then it has zeros and says of what kind it is.
func (u *Unwinder) stepARM64(s *state) error {
	record := s.fp
	if record == 0 && u.inRetFromFork(s) {
		return errEnd("end of stack")
	}
	fp, err := u.word(record)
	if err != nil {
		return err
	}
	ip, err := u.word(record + wordSize)
	if err != nil {
		return err
	}
	last := fp == 0 && ip == 0
	if regs := u.regsAround(record, fp, ip, last); regs != nil {
		s.ip, s.sp, s.fp, s.regs = regs.IP(), regs.SP(), regs.FP(), regs
		s.frame = Frame{IP: s.ip, SP: s.sp, At: record + wordSize, Found: FromRegisters, Regs: regs}
		return nil
	}
	if last {
		return errEnd("end of stack")
	}
	back, ok := u.plain(ip)
	if !ok {
		return fmt.Errorf("the return address %v in the frame record at %v is in no code", ip, record)
	}
	s.ip, s.sp, s.fp, s.regs = back, 0, fp, nil
	s.frame = Frame{IP: s.ip, Return: true, At: record + wordSize, Found: FromFrameRecord}
	return nil
}

// inRetFromFork reports whether s is where kernel threads start. They had no record to end with before 5.14 (7d7b720a4b80, "arm64:
// Implement stack trace termination record"): their first frame pointer is 0.
func (u *Unwinder) inRetFromFork(s *state) bool {
	function, ok := u.symbols.Find(s.ip - 1)
	return ok && s.frame.Return && function.Name == "ret_from_fork"
}

// regsAround returns the registers of the pt_regs in which a record lies, or nil. The record of an exception agrees with the
// registers before it, or says that there are some. The last one of a stack lies in the pt_regs of user mode, or in one that
// a kernel thread does not use.
func (u *Unwinder) regsAround(record, fp, ip mem.VirtAddr, last bool) *Registers {
	offset, kind := mem.VirtAddr(plainRecord), mem.VirtAddr(0)
	if last {
		kind, _ = u.word(record + 2*wordSize) // before 6.13 this may be the end of the stack
	}
	if kind == metaFinal || kind == metaRegs {
		offset = typedRecord
	}
	b := make([]byte, armCount*wordSize)
	if u.kernel.ReadVirt(b, record-offset) != nil {
		return nil
	}
	regs, err := ParseRegisters(elf.EM_AARCH64, b)
	if err != nil {
		return nil
	}
	switch {
	case !last && regs.FP() == fp && regs.IP() == ip && !regs.User():
		return regs
	case kind == metaRegs && !regs.User():
		return regs
	case last && kind != metaRegs && regs.User() && regs.IP() != 0 && regs.IP() < 1<<userBits:
		return regs
	default:
		return nil
	}
}
