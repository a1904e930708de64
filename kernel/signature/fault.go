package signature

import (
	"debug/elf"
	"encoding/binary"
	"slices"
)

// deepRecursion is how often a function comes back in a stack, at least, to be taken for the reason of the crash. 40 of the lab's functions
// fill a stack of 16 KiB; what recurses in the kernel by design, such as stacked file systems and block devices, comes back a few times.
const deepRecursion = 16

// OfFault returns the signature of a crash by the stack of the task in which an exception stopped the machine. The kernel hands the registers
// of the exception to crash_kexec() then, so the stack begins where it was. instruction has the first bytes there, up to 15, or none if they
// cannot be read. The result is nil if the stack does not say what crashed.
func OfFault(stack []Place, machine elf.Machine, instruction []byte) *Signature {
	if len(stack) == 0 {
		return nil
	}
	c := trapOf(machine, instruction)
	switch {
	case len(recursive(plain(stack), deepRecursion)) > 0:
		c = stackOverflow
	case stack[0].Function == "":
		c = jump
	}
	places := culprits(c, stack)
	if len(places) == 0 {
		return nil
	}
	return newSignature(c, places)
}

// IsPanic reports whether a stack is one of a call of panic(), which OfStacks takes. OfFault takes any other stack of a task that stopped the
// machine.
func IsPanic(stack []Place) bool { return skip(stack, 0, dies) > 0 }

// trapOf is the class of the exception that an instruction makes: a check of the kernel, a division, or else a wrong address.
func trapOf(machine elf.Machine, code []byte) class {
	switch {
	case machine == elf.EM_X86_64:
		return trapOfX86(code)
	case machine == elf.EM_AARCH64 && len(code) >= 4:
		word := binary.LittleEndian.Uint32(code)
		if word&0xffe0001f == 0xd4200000 || word&0xffff0000 == 0 { // BRK, UDF (Arm ARM, C6.2)
			return bug
		}
	}
	return fault
}

// trapOfX86 knows UD0, UD1, UD2 and UDB, and DIV and IDIV (Intel SDM, volume 2, appendix A).
func trapOfX86(code []byte) class {
	prefixes := []byte{0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3}
	for len(code) > 0 && slices.Contains(prefixes, code[0]) {
		code = code[1:]
	}
	if len(code) > 0 && code[0]&0xf0 == 0x40 { // REX
		code = code[1:]
	}
	switch {
	case len(code) > 0 && code[0] == 0xd6:
		return bug
	case len(code) < 2:
		return fault
	case code[0] == 0x0f && (code[1] == 0x0b || code[1] == 0xb9 || code[1] == 0xff):
		return bug
	case (code[0] == 0xf6 || code[0] == 0xf7) && code[1]>>3&7 >= 6:
		return divide
	}
	return fault
}
