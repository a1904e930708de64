package tasks

import (
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/mem"
)

// CPU is a processor of the machine.
type CPU struct {
	Number int
	// Online is as percpu.Areas.Online says.
	Online bool
	// Current and Idle are its task_structs: the one that it was running, and the one that it runs when nothing else is to
	// be done. They are the same on an idle processor. Idle is 0 if the run queue cannot be read.
	Current, Idle mem.VirtAddr
}

var errNoQueues = errors.New("the kernel's symbols lack runqueues: it has those of code alone, or this one could not be read")

// CPUs lists the processors that the kernel set up, ascending: possible ones that never came up have no idle task and are
// left out. The error is for those that cannot be read.
func (r *Reader) CPUs() ([]CPU, error) {
	queues, ok := r.symbols.Address("runqueues")
	if !ok || r.areas == nil {
		return nil, errNoQueues
	}
	var list []CPU
	var broken errorList
	for _, cpu := range r.areas.Possible() {
		at, _ := r.areas.Address(queues, cpu)
		rec, err := r.queue.Read(r.k, at)
		if err != nil {
			broken.add(fmt.Errorf("run queue of CPU %d: %w", cpu, err))
			if current, ok := r.currentTask(cpu); ok {
				list = append(list, CPU{Number: cpu, Online: r.areas.Online(cpu), Current: current})
			}
			continue
		}
		c := CPU{Number: cpu, Online: r.areas.Online(cpu), Current: rec.Pointer("curr"), Idle: rec.Pointer("idle")}
		if c.Idle != 0 {
			list = append(list, c)
		}
	}
	return list, broken.err()
}

// currentTask returns what a processor of x86_64 itself takes for its current task, in the per-CPU variable current_task or,
// from 6.2 (e57ef2ed97c1) to 6.14, in pcpu_hot.
func (r *Reader) currentTask(cpu int) (mem.VirtAddr, bool) {
	symbol, ok := r.symbols.Address("current_task")
	if !ok {
		hot, ok := r.symbols.Address("pcpu_hot")
		offset, err := r.known.Offset("pcpu_hot", "current_task")
		if !ok || err != nil {
			return 0, false
		}
		symbol = hot + mem.VirtAddr(offset)
	}
	at, _ := r.areas.Address(symbol, cpu)
	task, err := r.k.ReadUint64(at)
	return mem.VirtAddr(task), err == nil && task != 0
}

// List reads all tasks: the idle ones of the processors by number, then the processes in the order in which they were made,
// each followed by its other threads. The error says what could not be read. The tasks that came before it, and those that
// other lists have, are there in spite of it.
func (r *Reader) List() ([]Task, error) {
	cpus, err := r.CPUs()
	w := &walk{r: r, seen: map[mem.VirtAddr]bool{}, active: map[mem.VirtAddr]int{}}
	if errors.Is(err, errNoQueues) {
		w.active = nil
		w.idle(CPU{Idle: r.init})
	} else {
		w.broken.add(err)
	}
	for _, c := range cpus {
		w.active[c.Current] = c.Number
	}
	for _, c := range cpus {
		if c.Idle != 0 {
			w.idle(c)
		}
	}
	w.processes()
	for _, c := range cpus { // a list may be broken, but a processor knows what it runs
		if !w.seen[c.Current] {
			w.read(c.Current, anyTask)
		}
	}
	w.addParents()
	w.r.addMemory(w.list)
	return w.list, w.broken.err()
}

// walk collects tasks.
type walk struct {
	r      *Reader
	list   []Task
	seen   map[mem.VirtAddr]bool
	active map[mem.VirtAddr]int // the processor that runs a task; nil if only the tasks themselves know
	broken errorList
}

func (w *walk) idle(c CPU) {
	if _, ok := w.read(c.Idle, anyTask); ok {
		t := &w.list[len(w.list)-1]
		t.Idle, t.CPU = true, c.Number
	}
}

// Tasks that a list may lead to.
const (
	anyTask = -1
	process = 0 // one that has a PID
	// Any other number stands for the threads of the process with that TGID.
)

// read reads a task that was not seen before and takes it into the list, if it is one that is expected there.
func (w *walk) read(at mem.VirtAddr, expect int) (types.Record, bool) {
	rec, err := w.r.task.Read(w.r.k, at)
	if err != nil {
		w.broken.add(err)
		return rec, false
	}
	t, err := w.r.decode(rec, at)
	if err == nil && expect != anyTask && (t.PID == 0 || expect != process && t.TGID != expect) {
		err = fmt.Errorf("task at %v: pid %d, tgid %d: not those of a task of this list", at, t.PID, t.TGID)
	}
	if err != nil {
		w.broken.add(err)
		return rec, false
	}
	w.seen[at] = true
	if cpu, ok := w.active[at]; ok {
		t.Active, t.CPU = true, cpu
	}
	if w.active == nil {
		t.Active = t.onCPU
	}
	w.list = append(w.list, t)
	return rec, true
}

// processes follows the list of processes, whose head is in init_task. If it is broken, the list is followed the other way
// round for those behind the break.
func (w *walk) processes() {
	if !w.follow("tasks.next") {
		w.follow("tasks.prev")
	}
}

// follow reads all processes and their threads along one member of the list. It reports whether it came back to the head.
func (w *walk) follow(link string) bool {
	offset := mem.VirtAddr(w.r.task.Field("tasks").Offset)
	rec, err := w.r.task.Read(w.r.k, w.r.init)
	if err != nil {
		w.broken.add(fmt.Errorf("init_task: %w", err))
		return false
	}
	last := w.r.init
	for at := rec.Pointer(link); at != w.r.init+offset; at = rec.Pointer(link) {
		task, ok := at-offset, false
		if w.seen[task] && link == "tasks.prev" {
			return true // this is where the way from the head ended
		}
		if !w.mayRead(task, fmt.Sprintf("%s of the task at %v", link, last)) {
			return false
		}
		if rec, ok = w.read(task, process); !ok {
			return false
		}
		w.threads(task, rec, w.list[len(w.list)-1].TGID)
		last = task
	}
	return true
}

// mayRead refuses tasks that were read before, and more tasks than any list should have.
func (w *walk) mayRead(task mem.VirtAddr, from string) bool {
	switch {
	case w.seen[task]:
		w.broken.add(fmt.Errorf("%s leads to the task at %v, which was there before", from, task))
	case len(w.list) >= maxTasks:
		w.broken.add(fmt.Errorf("%s: there are more than %d tasks", from, maxTasks))
	default:
		return true
	}
	return false
}

// threads reads the other threads of a process (signal_struct.thread_head), given its first one.
func (w *walk) threads(leader mem.VirtAddr, rec types.Record, tgid int) {
	signal := rec.Pointer("signal")
	if signal == 0 {
		return
	}
	own, err := w.r.signal.Read(w.r.k, signal)
	if err != nil {
		w.broken.add(fmt.Errorf("threads of the task at %v: %w", leader, err))
		return
	}
	offset := mem.VirtAddr(w.r.task.Field("thread_node").Offset)
	at, head := own.Pointer("thread_head"), own.Addr("thread_head")
	if at == leader+offset { // the process's first thread comes first
		at = rec.Pointer("thread_node")
	}
	for at != head {
		ok := w.mayRead(at-offset, fmt.Sprintf("thread_node of a thread of the task at %v", leader))
		if ok {
			rec, ok = w.read(at-offset, tgid)
		}
		if !ok {
			return
		}
		at = rec.Pointer("thread_node")
	}
}

// addParents fills the PPID of all tasks. The parent of a task that nobody adopted may be on no list.
func (w *walk) addParents() {
	pids := map[mem.VirtAddr]int{}
	for _, t := range w.list {
		pids[t.Addr] = t.PID
	}
	for i := range w.list {
		t := &w.list[i]
		if t.Idle {
			continue
		}
		pid, ok := pids[t.parent]
		if !ok {
			parent, err := w.r.Task(t.parent)
			if err != nil {
				w.broken.add(fmt.Errorf("parent of the task at %v: %w", t.Addr, err))
			}
			pid = parent.PID
			pids[t.parent] = pid
		}
		t.PPID = pid
	}
}

// errorList keeps the first errors of many.
type errorList struct {
	list []error
	more int
}

const maxErrors = 16

func (l *errorList) add(err error) {
	switch {
	case err == nil:
	case len(l.list) < maxErrors:
		l.list = append(l.list, err)
	default:
		l.more++
	}
}

func (l *errorList) err() error {
	if l.more > 0 {
		return errors.Join(append(l.list, fmt.Errorf("and %d more", l.more))...)
	}
	return errors.Join(l.list...)
}
