package triage

import (
	"fmt"

	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/kernel/tasks"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/mem"
)

// Backtrace is the kernel stack of a task. Addresses are hexadecimal.
type Backtrace struct {
	PID    int     `json:"pid"`
	CPU    int     `json:"cpu"`
	Comm   string  `json:"comm"`
	Task   string  `json:"task,omitempty"` // address of its task_struct
	State  string  `json:"state,omitempty"`
	Active bool    `json:"active"` // it was running on its CPU
	Frames []Frame `json:"frames"` // the innermost first
	// Complete says that the walk reached the place where the task starts or left user mode. End says why it ended.
	Complete bool   `json:"complete"`
	End      string `json:"end"`
}

// Frame is a place in the code that goes on when the frames before it have returned.
type Frame struct {
	Stack    string `json:"stack,omitempty"` // where the address lay on the stack
	Address  string `json:"address"`
	Function string `json:"function,omitempty"`
	Offset   uint64 `json:"offset"` // in Function, in bytes
	Size     uint64 `json:"size"`   // of Function, in bytes
	// Module is the module of Function. For trampolines of ftrace and the pages of kprobes it is what /proc/kallsyms has in its
	// place: "__builtin__ftrace", "__builtin__kprobes". BPF programs have none, as in the kernel's call traces.
	Module string `json:"module,omitempty"`
	// Livepatch says that Module is a live patch, so Function replaces one of the kernel image or of another module, often with the
	// same name.
	Livepatch bool `json:"livepatch,omitempty"`
	// Found is how the frame was found: "registers", "orc", "frame record", "call site", "bpf" and "tracer" are proved; "frame
	// pointer" and "guess" may be wrong.
	Found unwind.Method `json:"found"`
	User  bool          `json:"user,omitempty"` // user mode, which the task had left
	// File and Line are the place in Function, by the debugging information of the kernel or module; of a call, that of the call. Inlined
	// is what the compiler inlined there, the innermost first. See Memory.UseDebugFiles.
	File    string    `json:"file,omitempty"`
	Line    int       `json:"line,omitempty"`
	Inlined []Inlined `json:"inlined,omitempty"`
	// Registers are those that an exception, an interrupt or a system call saved here.
	Registers []Register `json:"registers,omitempty"`
}

// Register is a register of a frame.
type Register struct {
	Name  string `json:"name"` // as in struct pt_regs
	Value string `json:"value"`
}

// Proved reports whether the frame is no guess.
func (f *Frame) Proved() bool {
	return f.Found != unwind.FromGuess && f.Found != unwind.FromFramePointer
}

// CPUs returns the backtrace of the task that each CPU was running, by number.
func (m *Memory) CPUs() (list []Backtrace) {
	if m.tasks == nil || m.areas == nil {
		return m.bareCPUs()
	}
	m.part("the CPUs", func() error {
		cpus, err := m.tasks.CPUs()
		for i, c := range cpus {
			if b, taskErr := m.active(c, i, len(cpus)); taskErr != nil {
				m.cannot(fmt.Sprintf("CPU %d", c.Number), taskErr)
			} else {
				list = append(list, b)
			}
		}
		return err
	})
	return list
}

// active walks the stack of the task that the i-th of all CPUs was running.
func (m *Memory) active(c tasks.CPU, i, all int) (Backtrace, error) {
	t, err := m.tasks.Task(c.Current)
	if err != nil {
		return Backtrace{}, err
	}
	b := Backtrace{PID: t.PID, CPU: c.Number, Comm: t.Comm, Task: hexAddr(t.Addr), State: t.State.String(), Active: true, Frames: []Frame{}}
	if note, ok := m.notes().of(t, i, all); ok {
		m.walkNote(&b, t.Addr, note)
	} else {
		b.End = "the dump has no registers that are certainly of this CPU"
	}
	return b, nil
}

// bareCPUs returns the backtraces of a kernel whose per-CPU areas cannot be read. The notes alone say what the CPUs were doing, and which
// tasks they ran.
func (m *Memory) bareCPUs() (list []Backtrace) {
	if m.unwinder == nil {
		return nil
	}
	byPID := map[int]tasks.Task{}
	for _, t := range m.list() {
		byPID[t.PID] = t
	}
	delete(byPID, 0) // of all idle tasks
	for i, note := range m.img.Info().CPUs {
		b := Backtrace{PID: int(note.PID), CPU: i, Active: true, Frames: []Frame{}}
		t, ok := byPID[b.PID]
		if ok {
			b.Comm, b.Task, b.State = t.Comm, hexAddr(t.Addr), t.State.String()
		}
		m.walkNote(&b, t.Addr, note)
		list = append(list, b)
	}
	return list
}

// maxBlocked limits the backtraces of blocked tasks. Thousands of tasks may wait for one lock.
const maxBlocked = 64

// Blocked returns the backtraces of the first tasks that waited and could not be interrupted, by PID. Unread says how many more
// there were.
func (m *Memory) Blocked() (list []Backtrace) {
	more := 0
	for _, t := range m.list() {
		switch {
		case !t.State.Blocked() || t.Active:
		case len(list) < maxBlocked:
			list = append(list, m.sleeping(t))
		default:
			more++
		}
	}
	if more > 0 {
		m.cannot("blocked tasks", fmt.Errorf("%d more than the %d whose stacks were read", more, maxBlocked))
	}
	return list
}

// sleeping returns the backtrace of a task that was not running.
func (m *Memory) sleeping(t tasks.Task) Backtrace {
	b := Backtrace{PID: t.PID, CPU: t.CPU, Comm: t.Comm, Task: hexAddr(t.Addr), State: t.State.String(), Frames: []Frame{}}
	m.part("the stack of task "+hexAddr(t.Addr), func() error {
		if m.unwinder == nil {
			b.End = "the stacks of this kernel cannot be walked"
			return nil
		}
		regs, err := m.tasks.Saved(t)
		if err != nil {
			b.End = err.Error()
			return nil
		}
		m.walk(&b, func() unwind.Trace { return m.unwinder.UnwindSwitched(t.Addr, regs.ThreadSP, regs.FP, regs.IP) })
		return nil
	})
	return b
}

// maxFrames limits the frames of all stacks together: 64 for each of 8192 CPUs.
const maxFrames = 1 << 19

// walk walks a stack, unless hostile memory has had too many frames before.
func (m *Memory) walk(b *Backtrace, stack func() unwind.Trace) {
	if m.frames >= maxFrames {
		b.End = fmt.Sprintf("the stacks before this one have %d frames: more are not read", m.frames)
		return
	}
	t := stack()
	m.frames += len(t.Frames)
	for _, f := range t.Frames {
		b.Frames = append(b.Frames, m.frame(f))
	}
	b.Complete, b.End = t.Complete, t.End
}

func (m *Memory) frame(f unwind.Frame) Frame {
	c := Frame{Address: hexAddr(f.IP), Found: f.Found}
	if f.At != 0 {
		c.Stack = hexAddr(f.At)
	}
	if r := f.Regs; r != nil {
		c.User = r.User()
		for i, name := range r.Names() {
			if i >= r.First {
				c.Registers = append(c.Registers, Register{Name: name, Value: fmt.Sprintf("%016x", r.Values[i])})
			}
		}
	}
	if c.User {
		return c
	}
	at := f.IP
	if f.Return {
		at-- // a call that never returns can be the last instruction of its function
	}
	if s, ok := m.symbol(at, &c); ok {
		c.Function, c.Offset, c.Size = s.Name, uint64(f.IP-s.Addr), s.Size
		m.setLines(&c, at)
	}
	return c
}

// symbol finds the function at an address. It sets the module of c.
func (m *Memory) symbol(a mem.VirtAddr, c *Frame) (s kallsyms.Symbol, ok bool) {
	if s, ok = m.symbols.Find(a); ok {
		return s, true
	}
	if m.modules != nil {
		if in, s, ok := m.modules.Find(a); in != nil {
			c.Module, c.Livepatch = in.Name, in.Livepatch()
			return s, ok
		}
	}
	if m.code == nil {
		return s, false
	}
	s, c.Module, ok = m.code.Find(a)
	return s, ok
}
