package tasks

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/mem"
)

// A tracer that follows the return of a function puts its own code in the place of the return address, and keeps that
// for the task: a kretprobe in a struct rethook_node on task_struct.rethooks since 5.18 (54ecbe6f1ed5, "rethook: Add a generic
// return hook"), in a struct kretprobe_instance on task_struct.kretprobe_instances since 5.11 (d741bf41d7c7, "kprobes: Remove
// kretprobe hash"), before it in one in the table kretprobe_inst_table. The function graph tracer has a struct
// ftrace_ret_stack on task_struct.ret_stack (kernel/trace/fgraph.c), and since 6.11 data of other users between them.

const (
	maxHooks       = 1024    // of one list: functions in each other
	maxSteps       = 1 << 16 // nodes and lists that are read for all stacks together
	returnStackLen = 4096    // bytes: SHADOW_STACK_SIZE; before 6.11 less, FTRACE_RETFUNC_DEPTH times the structure
	probeBuckets   = 64      // KPROBE_TABLE_SIZE
	word           = 8
)

// hookView is where the nodes of a kind of tracer have what matters.
type hookView struct {
	view                *types.View
	link                string // the llist_node or hlist_node, by its member next
	returnTo, frame     string
	task                string // "" if the list is that of one task
	structure, listHead string
}

var hookKinds = []hookView{
	{structure: "rethook_node", listHead: "rethooks.first", link: "llist.next", returnTo: "ret_addr", frame: "frame"},
	{structure: "kretprobe_instance", listHead: "kretprobe_instances.first", link: "llist.next", returnTo: "ret_addr", frame: "fp"},
	{structure: "kretprobe_instance", link: "hlist.next", returnTo: "ret_addr", frame: "fp", task: "task"},
}

// Returns finds the return addresses that tracers took from stacks. It implements unwind.Returns.
type Returns struct {
	r     *Reader
	heads *types.View // of task_struct
	kinds []hookView
	entry *types.View // struct ftrace_ret_stack, nil if it does not say for which return address it is
	table mem.VirtAddr
	steps atomic.Int64
}

// Returns prepares to find return addresses. It fails only if types cannot be read: kernels have few of these tracers.
func (r *Reader) Returns() (*Returns, error) {
	x := &Returns{r: r}
	x.table, _ = r.symbols.Address("kretprobe_inst_table")
	var err error
	if x.heads, err = r.known.View("task_struct", []string{"pid"}, "rethooks.first", "kretprobe_instances.first", "ret_stack"); err != nil {
		return nil, err
	}
	for _, kind := range hookKinds {
		members := []string{kind.link, kind.returnTo, kind.frame}
		if kind.task != "" {
			members = append(members, kind.task)
		}
		if kind.view, err = r.known.View(kind.structure, members); err == nil {
			x.kinds = append(x.kinds, kind)
		} else if !errors.Is(err, types.ErrNotFound) {
			return nil, err
		}
	}
	if x.entry, err = r.known.View("ftrace_ret_stack", []string{"ret", "retp"}); err != nil && !errors.Is(err, types.ErrNotFound) {
		return nil, err
	}
	return x, nil
}

// Probed returns what kretprobes say that was in the place of a return address of a task before they put their own code there, the last
// one's first. frame is what they know the place by: on x86_64 its own address, on arm64 the frame pointer of the caller. Their lists have
// no probe whose function has returned.
func (x *Returns) Probed(task, frame mem.VirtAddr) (list []mem.VirtAddr) {
	rec, err := x.heads.Read(x.r.k, task)
	if err != nil {
		return nil
	}
	for _, kind := range x.kinds {
		switch {
		case kind.listHead != "":
			list = x.hooked(list, kind, rec.Pointer(kind.listHead), task, frame)
		case x.table != 0:
			for i := range mem.VirtAddr(probeBuckets) {
				if !x.step() {
					break
				}
				first, err := x.r.k.ReadUint64(x.table + word*i)
				if err != nil {
					break
				}
				list = x.hooked(list, kind, mem.VirtAddr(first), task, frame)
			}
		}
	}
	return list
}

// step reports whether one more node or list may be read.
func (x *Returns) step() bool { return x.steps.Add(1) <= maxSteps }

// hooked adds those of a list of nodes.
func (x *Returns) hooked(list []mem.VirtAddr, kind hookView, at, task, frame mem.VirtAddr) []mem.VirtAddr {
	for range maxHooks {
		if at == 0 || !x.step() {
			break
		}
		rec, err := kind.view.Read(x.r.k, at-mem.VirtAddr(kind.view.Field(kind.link).Offset))
		if err != nil {
			break
		}
		if rec.Pointer(kind.frame) == frame && (kind.task == "" || rec.Pointer(kind.task) == task) {
			list = append(list, rec.Pointer(kind.returnTo))
		}
		at = rec.Pointer(kind.link)
	}
	return list
}

// Graphed returns what the function graph tracer says, as Probed does. Entries lie at multiples of a word. Behind those in use lie old
// ones, which nobody clears. They may have been of the same place: the first counts, and if none is in use, an old one is what is
// returned.
func (x *Returns) Graphed(task, frame mem.VirtAddr) (mem.VirtAddr, bool) {
	rec, err := x.heads.Read(x.r.k, task)
	if err != nil || x.entry == nil {
		return 0, false
	}
	b := x.returnStack(rec.Pointer("ret_stack"))
	ret, place := int(x.entry.Field("ret").Offset), int(x.entry.Field("retp").Offset) //nolint:gosec // at most 64 KiB
	for at := 0; at+max(ret, place)+word <= len(b); at += word {
		if binary.LittleEndian.Uint64(b[at+place:]) == uint64(frame) {
			return mem.VirtAddr(binary.LittleEndian.Uint64(b[at+ret:])), true
		}
	}
	return 0, false
}

// returnStack reads the function graph tracer's stack of a task, nothing if there is none.
func (x *Returns) returnStack(at mem.VirtAddr) []byte {
	if at == 0 || !x.step() {
		return nil
	}
	b := make([]byte, returnStackLen)
	if x.r.k.ReadVirt(b, at) != nil { // before 6.11 it may end before: with its page
		page := mem.VirtAddr(1) << x.r.k.PageShift()
		b = b[:min(returnStackLen, page-at%page)]
		if x.r.k.ReadVirt(b, at) != nil {
			return nil
		}
	}
	return b
}
