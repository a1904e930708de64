package unwind

import (
	"debug/elf"
	"encoding/binary"
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// Registers are the general registers of a CPU, in the order of the kernel's struct pt_regs, with which elf_gregset_t of
// NT_PRSTATUS notes begins.
type Registers struct {
	Machine elf.Machine
	// Values has one value for each of Names. Those before First are not known.
	Values []uint64
	First  int
}

// Places of registers in pt_regs (arch/x86/include/asm/ptrace.h, arch/arm64/include/uapi/asm/ptrace.h).
const (
	x86R13   = 2
	x86BP    = 4
	x86R10   = 7
	x86AX    = 10
	x86DX    = 12
	x86DI    = 14
	x86IP    = 16
	x86CS    = 17
	x86SP    = 19
	x86Count = 21

	armFP     = 29
	armSP     = 31
	armPC     = 32
	armPState = 33
	armCount  = 34
)

var x86Names = []string{
	"r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "orig_ax", "ip", "cs", "flags", "sp", "ss",
}

var armNames = func() (names []string) {
	for i := range 31 {
		names = append(names, fmt.Sprintf("x%d", i))
	}
	return append(names, "sp", "pc", "pstate")
}()

// ParseRegisters reads the registers of a machine from a pt_regs or an elf_gregset_t, of little-endian words. The error
// matches ErrUnsupported, or says that b is too short.
func ParseRegisters(machine elf.Machine, b []byte) (*Registers, error) {
	r := &Registers{Machine: machine}
	n := len(r.Names())
	if n == 0 {
		return nil, fmt.Errorf("%w: machine %v", ErrUnsupported, machine)
	}
	if len(b) < n*wordSize {
		return nil, fmt.Errorf("registers of %d bytes, %d needed", len(b), n*wordSize)
	}
	for i := range n {
		r.Values = append(r.Values, binary.LittleEndian.Uint64(b[wordSize*i:]))
	}
	return r, nil
}

// Names returns the kernel's names of the registers.
func (r *Registers) Names() []string {
	switch r.Machine {
	case elf.EM_X86_64:
		return x86Names
	case elf.EM_AARCH64:
		return armNames
	default:
		return nil
	}
}

// pick returns the value of a register that the machines have at different places.
func (r *Registers) pick(x86, arm int) uint64 {
	if r.Machine == elf.EM_AARCH64 {
		return r.Values[arm]
	}
	return r.Values[x86]
}

// IP returns the address of the next instruction.
func (r *Registers) IP() mem.VirtAddr { return mem.VirtAddr(r.pick(x86IP, armPC)) }

// SP returns the stack pointer.
func (r *Registers) SP() mem.VirtAddr { return mem.VirtAddr(r.pick(x86SP, armSP)) }

// FP returns the frame pointer: rbp, which code may use for anything, or x29. 0 if not known.
func (r *Registers) FP() mem.VirtAddr { return mem.VirtAddr(r.pick(x86BP, armFP)) }

// User reports whether these are registers of user mode.
func (r *Registers) User() bool {
	if r.Machine == elf.EM_AARCH64 {
		const modeMask = 0xf // PSR_MODE_MASK without PSR_MODE32_BIT; 0 is EL0
		return r.Values[armPState]&modeMask == 0
	}
	return r.Values[x86CS]&3 == 3
}

// value returns a register, if it is known.
func (r *Registers) value(i int) (uint64, bool) {
	if r == nil || i < r.First {
		return 0, false
	}
	return r.Values[i], true
}
