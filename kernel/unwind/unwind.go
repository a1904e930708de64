// Package unwind walks the stacks of a crashed kernel: on x86_64 by the kernel's own ORC tables, on arm64 by frame
// records.
//
// It follows arch/x86/kernel/unwind_orc.c and arch/arm64/kernel/stacktrace.c in the kernel tree, so that its frames are
// those that the kernel prints without a question mark. It knows every layout of ORC entries since 4.14 and tells them
// apart by what the table contains. It walks through exception, interrupt and NMI stacks by following the stack pointer.
//
// ORC covers the kernel image and modules. Other code (of BPF programs) is walked by the frame pointer, as the kernel does,
// and so are kernels of x86_64 without ORC (CONFIG_UNWINDER_FRAME_POINTER). Where a tracer has put its own code in the place of a return
// address, the walk goes on with what the tracer kept. Each frame says how it was found, and each trace why it ended.
//
// Memory is hostile input. The number of frames is limited, no two frames have the same stack pointer, and an ORC table
// that is not sorted is noticed where it matters. An Unwinder is read-only after New and safe for concurrent use.
package unwind

import (
	"debug/elf"
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/mem"
)

// ErrUnsupported says that the stacks of a kernel cannot be walked.
var ErrUnsupported = errors.New("unwinding is not possible")

// maxFrames limits a trace. A stack of 16 KiB has 1024 frames of two words.
const maxFrames = 1024

// Method says how a frame was found.
type Method string

// All methods. The last two can be wrong. Of all others, the kernel's own structures prove them.
const (
	FromRegisters    Method = "registers"     // saved by the kernel: at an exception, at a switch of tasks, in a note
	FromORC          Method = "orc"           // by the ORC entry of the frame after it
	FromFrameRecord  Method = "frame record"  // arm64: by the chain of frame records
	FromCallSite     Method = "call site"     // x86_64: the frame after it has no ORC, but before a return address lies a call of its function
	FromBPF          Method = "bpf"           // x86_64: the frame after it is of a BPF program or trampoline, which keep frame pointers
	FromTracer       Method = "tracer"        // a tracer had taken the return address from the stack, and kept it
	FromFramePointer Method = "frame pointer" // x86_64: the frame after it has no ORC, its rbp was taken for a frame pointer
	FromGuess        Method = "guess"         // what lay at a stack pointer was taken for a return address; all frames behind it have this too
)

// Frame is a place in the code that will go on when all frames after it, the ones listed first, have returned.
type Frame struct {
	IP mem.VirtAddr
	// Return says that IP is a return address. The function that called is that of IP-1: a call at a function's end
	// returns to the next one.
	Return bool
	SP     mem.VirtAddr // the stack pointer when it goes on; 0 on arm64, except with Regs
	At     mem.VirtAddr // where on the stack IP was; 0 for the first frame
	Found  Method
	Regs   *Registers // all registers of an interrupted frame, also of user mode; otherwise nil
}

// Trace is a walk of a stack.
type Trace struct {
	Frames []Frame
	// Complete says that the walk reached the end of the stack, where a task starts or user mode was left.
	Complete bool
	End      string // why the walk ended
}

// Symbols has the symbols of the kernel image. *kallsyms.Table implements it.
type Symbols interface {
	Address(name string) (mem.VirtAddr, bool)
	Find(a mem.VirtAddr) (kallsyms.Symbol, bool)
}

// Modules has the ORC tables of modules.
type Modules interface {
	// ORC returns the table of the module whose memory has address a, with Count 0 if it has none. ok is false for other addresses.
	ORC(a mem.VirtAddr) (t ORCTable, ok bool)
}

// Generated knows code that was made at run time. *generated.List implements it.
type Generated interface {
	// Contains reports whether an address is in such code.
	Contains(a mem.VirtAddr) bool
	// KeepsFramePointer reports whether an address is in such code whose rbp is a frame pointer.
	KeepsFramePointer(a mem.VirtAddr) bool
}

// Returns has the return addresses that tracers took from stacks. *tasks.Returns implements it.
type Returns interface {
	// Probed returns what kretprobes found in the place of a return address of a task, the last one's first. frame is the address of
	// that place, on arm64 the frame pointer of the caller.
	Probed(task, frame mem.VirtAddr) []mem.VirtAddr
	// Graphed returns what the function graph tracer found there. It never clears what it kept: it may be of an earlier call, unless
	// the tracer's code is in the place now, or is what a kretprobe found.
	Graphed(task, frame mem.VirtAddr) (mem.VirtAddr, bool)
}

// Sources are what an Unwinder asks besides symbols. Each may be nil.
type Sources struct {
	Modules   Modules
	Generated Generated
	Returns   Returns
}

// Unwinder walks the stacks of one kernel. Make one with New.
type Unwinder struct {
	kernel  *kernel.Kernel
	symbols Symbols
	sources Sources
	image   ORCTable // x86_64
	layout  orcLayout
	code    []codeRange
	// imageEnd is where the kernel image ends, 0 if not known.
	imageEnd mem.VirtAddr
	forks    []mem.VirtAddr          // x86_64: where a task starts that has not run yet
	hooks    map[mem.VirtAddr]string // what tracers put in the place of return addresses
	pacMask  uint64                  // arm64: the bits of a signed address that are all set in a plain one
}

// codeRange is a half-open range of addresses.
type codeRange struct{ start, end mem.VirtAddr }

// New returns an unwinder for k. Errors match ErrUnsupported.
func New(k *kernel.Kernel, symbols Symbols, from Sources) (*Unwinder, error) {
	u := &Unwinder{kernel: k, symbols: symbols, sources: from}
	u.findCode()
	u.findHooks()
	switch k.Machine() {
	case elf.EM_X86_64:
		u.findForks()
		if err := u.findORC(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	case elf.EM_AARCH64:
		u.setupARM64()
	default:
		return nil, fmt.Errorf("%w: machine %v", ErrUnsupported, k.Machine())
	}
	return u, nil
}

// findCode finds the code of the kernel image.
func (u *Unwinder) findCode() {
	for _, names := range [][2]string{{"_stext", "_etext"}, {"_sinittext", "_einittext"}} {
		start, ok1 := u.symbols.Address(names[0])
		end, ok2 := u.symbols.Address(names[1])
		if ok1 && ok2 {
			u.code = append(u.code, codeRange{start, end})
		}
	}
	u.imageEnd, _ = u.symbols.Address("_end")
}

// findForks finds where new tasks start: ret_from_fork_asm since 6.6 (3aec4ecb3d1f, "x86: Rewrite ret_from_fork() in C"), before
// it ret_from_fork.
func (u *Unwinder) findForks() {
	for _, name := range []string{"ret_from_fork_asm", "ret_from_fork"} {
		if a, ok := u.symbols.Address(name); ok {
			u.forks = append(u.forks, a)
		}
	}
}

// graphHook is what the function graph tracer puts in the place of a return address.
const graphHook = "return_to_handler"

// findHooks finds the code to which functions return whose return is traced: by the function graph tracer (kernel/trace/fgraph.c), or
// by kretprobes (arch_rethook_trampoline of kernel/trace/rethook.c, before it __kretprobe_trampoline of kernel/kprobes.c).
func (u *Unwinder) findHooks() {
	u.hooks = map[mem.VirtAddr]string{}
	for _, name := range []string{graphHook, "arch_rethook_trampoline", "__kretprobe_trampoline", "kretprobe_trampoline"} {
		if a, ok := u.symbols.Address(name); ok {
			u.hooks[a] = name
		}
	}
}

// isCode reports whether address a is in code that is known: of the kernel image, in a module, or made at run time.
func (u *Unwinder) isCode(a mem.VirtAddr) bool {
	return u.isBuilt(a) || u.sources.Generated != nil && u.sources.Generated.Contains(a)
}

// isBuilt reports whether address a is in the code of the kernel image or in a module.
func (u *Unwinder) isBuilt(a mem.VirtAddr) bool {
	for _, r := range u.code {
		if r.start <= a && a < r.end {
			return true
		}
	}
	if u.sources.Modules == nil {
		return false
	}
	_, ok := u.sources.Modules.ORC(a)
	return ok
}

// Unwind walks the stack of a task from a full set of registers: of a CPU's note, or of an exception. task is the address of its
// task_struct, 0 if it is not known: then nothing leads through a return that a tracer follows.
func (u *Unwinder) Unwind(task mem.VirtAddr, r *Registers) Trace {
	return u.walk(&state{
		task: task, ip: r.IP(), sp: r.SP(), fp: r.FP(), regs: r, frame: Frame{IP: r.IP(), SP: r.SP(), Found: FromRegisters, Regs: r},
	})
}

// UnwindSwitched walks the stack of a task that is not running. sp is the stack pointer that its thread_struct has. On
// x86_64 (thread.sp) the other registers lie on the stack, and fp and ip are not used. On arm64 (thread.cpu_context)
// they are fp and pc. task is as in Unwind.
func (u *Unwinder) UnwindSwitched(task, sp, fp, ip mem.VirtAddr) Trace {
	s := &state{task: task, ip: ip, sp: sp, fp: fp, frame: Frame{IP: ip, SP: sp, Return: true, Found: FromRegisters}}
	if u.kernel.Machine() == elf.EM_X86_64 {
		if err := u.readInactiveFrame(s); err != nil {
			return Trace{End: err.Error()}
		}
	}
	return u.walk(s)
}

// state is the walk at one frame.
type state struct {
	task       mem.VirtAddr // its task_struct, 0 if not known
	ip, sp, fp mem.VirtAddr
	regs       *Registers // of this frame; nil if only the above are known
	prevRegs   *Registers // x86_64: full registers of the frame before one that has an iret frame only
	guessed    bool       // this frame depends on a guess
	frame      Frame
}

// errEnd is the end of a stack. Every other error of a step cuts the trace.
type errEnd string

func (e errEnd) Error() string { return string(e) }

// walk collects frames from s on.
func (u *Unwinder) walk(s *state) Trace {
	t := Trace{}
	step := u.step()
	seen := map[mem.VirtAddr]bool{}
	for {
		t.Frames = append(t.Frames, s.frame)
		if s.regs != nil && s.regs.User() {
			t.Complete, t.End = true, "user mode"
			return t
		}
		if len(t.Frames) == maxFrames {
			t.End = fmt.Sprintf("more than %d frames", maxFrames)
			return t
		}
		if err := step(s); err != nil {
			var end errEnd
			t.Complete, t.End = errors.As(err, &end), err.Error()
			return t
		}
		if place := s.frame.At; seen[place] {
			t.End = fmt.Sprintf("the stack leads to %v again", place)
			return t
		}
		seen[s.frame.At] = true
		if s.guessed {
			s.frame.Found = FromGuess
		}
		if hook, ok := u.hooks[s.ip]; ok && s.frame.Return && !u.unhook(s) {
			s.frame.Return = false                   // no call comes before it
			if u.kernel.Machine() == elf.EM_X86_64 { // frame records of arm64 lead on
				t.Frames = append(t.Frames, s.frame)
				t.End = hook + " is in the place of a return address: a tracer follows the return, and has the address elsewhere"
				return t
			}
		}
	}
}

// unhook gives the frame of s, whose return address is a tracer's, the one that it had before. It reports whether that is known.
func (u *Unwinder) unhook(s *state) bool {
	if u.sources.Returns == nil || s.task == 0 {
		return false
	}
	frame := s.frame.At
	if u.kernel.Machine() == elf.EM_AARCH64 {
		frame = s.fp
	}
	graphed := u.hooks[s.ip] == graphHook
	for _, ip := range u.sources.Returns.Probed(s.task, frame) {
		if u.setTraced(s, ip) {
			return true
		}
		graphed = graphed || u.hooks[u.unsigned(ip)] == graphHook
	}
	if !graphed {
		return false
	}
	ip, ok := u.sources.Returns.Graphed(s.task, frame)
	return ok && u.setTraced(s, ip)
}

// setTraced gives the frame of s the return address that a tracer kept, unless that is none or another tracer's.
func (u *Unwinder) setTraced(s *state, ip mem.VirtAddr) bool {
	ip = u.unsigned(ip)
	if _, again := u.hooks[ip]; again || !u.isCode(ip) {
		return false
	}
	s.ip, s.frame.IP = ip, ip
	if !s.guessed {
		s.frame.Found = FromTracer
	}
	return true
}

// unsigned returns a return address without what arm64 may have signed it with.
func (u *Unwinder) unsigned(ip mem.VirtAddr) mem.VirtAddr {
	if u.kernel.Machine() == elf.EM_AARCH64 {
		ip, _ = u.plain(ip)
	}
	return ip
}

// step returns what moves a state to the frame before.
func (u *Unwinder) step() func(s *state) error {
	switch {
	case u.kernel.Machine() == elf.EM_AARCH64:
		return u.stepARM64
	case u.image.Count == 0:
		return u.stepFramePointer
	default:
		return u.stepORC
	}
}

const wordSize = 8

// word reads a word of the stack.
func (u *Unwinder) word(a mem.VirtAddr) (mem.VirtAddr, error) {
	if a%wordSize != 0 {
		return 0, fmt.Errorf("the stack pointer %v is not aligned", a)
	}
	v, err := u.kernel.ReadUint64(a)
	if err != nil {
		return 0, fmt.Errorf("the stack cannot be read: %w", err)
	}
	return mem.VirtAddr(v), nil
}
