// Package tasks reads the tasks of a crashed kernel: which there are, what they are doing, and which of them the
// processors were running.
//
// It finds everything through the kernel's own symbols and types (include/linux/sched.h, kernel/sched/sched.h), by the
// presence of symbols and members and not by version. BTF is needed. Kernels whose symbols are those of code alone (no
// CONFIG_KALLSYMS_ALL) are searched for init_task, and tasks say themselves whether they run: then only the first processor's
// idle task is known.
//
// Memory is hostile input. A list that loops, or that points to something that is no task, gives what was found up to
// there, with an error that says where. The number of tasks is bounded. A Reader is safe for concurrent use.
package tasks

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/percpu"
	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/mem"
)

// flagExiting is PF_EXITING (include/linux/sched.h).
const flagExiting = 0x4

// Task is one thread of the kernel or of a process.
type Task struct {
	Addr mem.VirtAddr // of its struct task_struct
	PID  int
	TGID int // the PID of the first thread of its process
	// PPID is the PID of its parent (real_parent), which may be a thread other than the first of the parent's process. It
	// is 0 for idle tasks, as crash has it, whoever started their processor.
	PPID  int
	Comm  string // up to 15 bytes, which may be any but NUL
	State State
	Flags uint32 // PF_* in include/linux/sched.h
	CPU   int
	// Active says that the task was the current one of CPU.
	Active bool
	// Idle says that it is the idle task of CPU.
	Idle  bool
	Stack mem.VirtAddr // the lowest address of its kernel stack, 0 if it has been released
	MM    mem.VirtAddr // its struct mm_struct, 0 for kernel threads and processes that have released it
	VSZ   uint64       // bytes of address space
	RSS   uint64       // bytes of memory in use, of the whole process
	// MemoryError says why VSZ and RSS are 0 though there is an MM.
	MemoryError error
	parent      mem.VirtAddr
	onCPU       bool  // it says so itself (CONFIG_SMP)
	cachedPages int64 // that are not yet in its process's counters
}

// Kernel reports whether it is a thread of the kernel, which crash prints in brackets.
func (t Task) Kernel() bool {
	return t.PID == 0 || t.MM == 0 && t.Flags&flagExiting == 0 && !t.State.Dead()
}

// Reader reads the tasks of one kernel.
type Reader struct {
	k        *kernel.Kernel
	symbols  types.Symbols
	known    *types.Types
	areas    *percpu.Areas
	task     *types.View
	init     mem.VirtAddr // init_task
	signal   *types.View
	queue    *types.View
	stackLen uint64 // bytes of a kernel stack (THREAD_SIZE)
	memory   *memory
	// memoryErr says why there is no memory: kernels may come to count it in ways that are not known here.
	memoryErr error
}

// New prepares to read tasks. It fails if symbols or types are missing that any task needs. areas is nil if they are not
// known.
func New(k *kernel.Kernel, symbols types.Symbols, known *types.Types, areas *percpu.Areas) (*Reader, error) {
	r := &Reader{k: k, symbols: symbols, known: known, areas: areas}
	var err error
	r.task, err = known.View("task_struct",
		[]string{"pid", "tgid", "comm", "exit_state", "flags", "real_parent", "stack", "mm", "tasks", "signal", "thread_node"},
		"tasks.next", "tasks.prev", "__state", "state", "thread_info.cpu", "cpu", "rss_stat.count", "on_cpu",
		"thread.sp", "thread.cpu_context.sp", "thread.cpu_context.fp", "thread.cpu_context.pc")
	if err == nil && !r.task.Has("__state") && !r.task.Has("state") {
		err = fmt.Errorf("task_struct has neither __state nor state: %w", types.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if size := r.task.Field("comm").Size; size > maxComm {
		return nil, fmt.Errorf("task_struct.comm has %d bytes, more than %d", size, maxComm)
	}
	var ok bool
	if r.init, ok = symbols.Address("init_task"); !ok {
		if r.init, err = r.searchInit(); err != nil {
			return nil, err
		}
	}
	if r.signal, err = known.View("signal_struct", []string{"thread_head"}); err != nil {
		return nil, err
	}
	if r.queue, err = known.View("rq", []string{"curr", "idle"}); err != nil {
		return nil, err
	}
	r.stackLen = r.findStackSize()
	r.memory, r.memoryErr = newMemory(r)
	return r, nil
}

// Limits of Task's numbers and of the number of tasks. PID_MAX_LIMIT is 4 Mi, but the tasks in a dump of any size are few.
const (
	pidLimit = 4 << 20
	maxTasks = 256 << 10
	maxCPU   = 1 << 14
	maxComm  = 64 // bytes; TASK_COMM_LEN is 16
	// Stacks are of pages or, where pages are larger than stacks, of a cache that aligns them to their size (thread_stack_cache in
	// kernel/fork.c: arm64 with pages of 64 KiB and without CONFIG_VMAP_STACK).
	stackAlign = 4 << 10
)

// Task reads the task at an address, without what lies outside its task_struct: PPID, VSZ and RSS.
func (r *Reader) Task(at mem.VirtAddr) (Task, error) {
	rec, err := r.task.Read(r.k, at)
	if err != nil {
		return Task{}, err
	}
	return r.decode(rec, at)
}

// decode makes a Task of a record. It fails if the record can be no task.
func (r *Reader) decode(rec types.Record, at mem.VirtAddr) (Task, error) {
	t := Task{
		Addr: at, Comm: rec.Text("comm"), Stack: rec.Pointer("stack"), MM: rec.Pointer("mm"),
		Flags: uint32(rec.Uint("flags")), parent: rec.Pointer("real_parent"), //nolint:gosec // the low half
	}
	pid, tgid := rec.Uint("pid"), rec.Uint("tgid")
	if pid > pidLimit || tgid > pidLimit {
		return Task{}, fmt.Errorf("task at %v: pid %d, tgid %d: not those of a task", at, pid, tgid)
	}
	if t.Stack%stackAlign != 0 || bytes.IndexByte(rec.Bytes("comm"), 0) < 0 {
		return Task{}, fmt.Errorf("task at %v: stack %v, comm %q: not those of a task", at, t.Stack, rec.Bytes("comm"))
	}
	t.PID, t.TGID = int(pid), int(tgid)
	// task_struct.state became __state with 5.14 (2f064a59a11f).
	state := rec.Uint("__state")
	if !r.task.Has("__state") {
		state = rec.Uint("state")
	}
	t.State = State(uint32(state) | uint32(rec.Uint("exit_state"))) //nolint:gosec // the bits of interest
	// cpu moved into thread_info with 5.16 (bcf9033e5449).
	cpu := rec.Uint("thread_info.cpu")
	if !r.task.Has("thread_info.cpu") {
		cpu = rec.Uint("cpu")
	}
	if cpu > maxCPU {
		return Task{}, fmt.Errorf("task at %v: cpu %d: not that of a task", at, cpu)
	}
	t.CPU = int(cpu)
	t.onCPU = rec.Uint("on_cpu") == 1
	t.cachedPages = cachedPages(rec.Bytes("rss_stat.count"))
	return t, nil
}

// findStackSize takes the size of init_task's stack between the symbols around it (INIT_TASK_DATA in
// include/asm-generic/vmlinux.lds.h; since renamed), else that of union thread_union, else that of all x86_64 and arm64
// kernels without KASAN: 16 KiB, or a page if that is larger (MIN_THREAD_SHIFT in arch/arm64/include/asm/memory.h).
func (r *Reader) findStackSize() uint64 {
	for _, around := range [][2]string{{"__start_init_stack", "__end_init_stack"}, {"__start_init_task", "__end_init_task"}} {
		start, ok := r.symbols.Address(around[0])
		end, ok2 := r.symbols.Address(around[1])
		if size := uint64(end - start); ok && ok2 && plausibleStack(size) {
			return size
		}
	}
	if size, err := r.known.Size("thread_union"); err == nil && plausibleStack(size) {
		return size
	}
	return max(16<<10, uint64(1)<<r.k.PageShift())
}

// plausibleStack reports whether stacks can have this size: 16 KiB to 64 KiB, twice to four times that with KASAN.
func plausibleStack(size uint64) bool { return size >= 8<<10 && size <= 256<<10 && size&(size-1) == 0 }

// Registers are those with which a task will go on that is not running.
type Registers struct {
	IP mem.VirtAddr // where it will return to
	SP mem.VirtAddr // the stack pointer after that return
	FP mem.VirtAddr // the frame pointer (rbp, x29)
	// ThreadSP is the stack pointer in its thread_struct. On x86_64 the other registers lie there.
	ThreadSP mem.VirtAddr
}

// Saved reads the registers that a task left when another one took its processor. Those of an Active task are stale.
func (r *Reader) Saved(t Task) (Registers, error) {
	rec, err := r.task.Read(r.k, t.Addr)
	if err != nil {
		return Registers{}, err
	}
	if t.Stack == 0 {
		return Registers{}, fmt.Errorf("task at %v has exited and has no stack any more", t.Addr)
	}
	if r.k.Machine() == elf.EM_AARCH64 {
		sp := rec.Pointer("thread.cpu_context.sp")
		if err := r.checkSP(t, sp, 0); err != nil {
			return Registers{}, err
		}
		return Registers{IP: rec.Pointer("thread.cpu_context.pc"), SP: sp, FP: rec.Pointer("thread.cpu_context.fp"), ThreadSP: sp}, nil
	}
	if !r.task.Has("thread.sp") {
		return Registers{}, errors.New("task_struct has no thread.sp: saved registers are not known for this machine")
	}
	return r.inactiveFrame(t, rec.Pointer("thread.sp"))
}

// inactiveFrame reads struct inactive_task_frame (arch/x86/include/asm/switch_to.h), which __switch_to_asm has pushed.
func (r *Reader) inactiveFrame(t Task, sp mem.VirtAddr) (Registers, error) {
	frame, err := r.known.View("inactive_task_frame", []string{"bp", "ret_addr"})
	if err != nil {
		return Registers{}, err
	}
	size, err := r.known.Size("inactive_task_frame")
	if err != nil {
		return Registers{}, err
	}
	if err := r.checkSP(t, sp, size); err != nil {
		return Registers{}, err
	}
	rec, err := frame.Read(r.k, sp)
	if err != nil {
		return Registers{}, err
	}
	return Registers{IP: rec.Pointer("ret_addr"), SP: sp + mem.VirtAddr(size), FP: rec.Pointer("bp"), ThreadSP: sp}, nil
}

// checkSP refuses a stack pointer that does not have size bytes of the task's own stack above it: the stack would be another task's.
func (r *Reader) checkSP(t Task, sp mem.VirtAddr, size uint64) error {
	if sp < t.Stack || uint64(sp-t.Stack) > r.stackLen-min(r.stackLen, size) {
		return fmt.Errorf("task at %v: saved stack pointer %v is not in its stack at %v", t.Addr, sp, t.Stack)
	}
	return nil
}
