package tasks_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/percpu"
	"github.com/corehaul/corehaul/kernel/tasks"
	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/kernel/types/typestest"
	"github.com/corehaul/corehaul/mem"
)

const stackSize = 16 << 10

// flagKthread is PF_KTHREAD (include/linux/sched.h).
const flagKthread = 0x200000

// form is how a kernel lays out what has changed over the years.
type form struct {
	state     string // member of task_struct
	cpuInInfo bool   // thread_info.cpu, not cpu
	perCPURSS bool   // struct percpu_counter
	// parts is the per-CPU address of the first counter's parts, step the distance to the next one's.
	parts, step mem.VirtAddr
}

var forms = map[string]form{
	"5.10": {state: "state"},
	"6.1":  {state: "__state", cpuInInfo: true},
	"6.2":  {state: "__state", cpuInInfo: true, perCPURSS: true, parts: 0x400, step: 0x200},
	"6.12": {state: "__state", cpuInInfo: true, perCPURSS: true, parts: 0x80, step: 4},
}

// machine is a kernel with two processors.
type machine struct {
	*typestest.Kernel
	form      form
	processes []mem.VirtAddr // the list_heads of the list of processes
	init      mem.VirtAddr
}

func structures(f form) []btf.Type {
	var (
		i, l, p, list = typestest.Int, typestest.Long, typestest.Pointer, typestest.List
		members       []typestest.Member
	)
	add := func(name string, typ btf.Type) { members = append(members, typestest.Member{Name: name, Type: typ}) }
	if f.cpuInInfo {
		add("thread_info", typestest.Struct("thread_info", typestest.Member{Name: "flags", Type: l}, typestest.Member{Name: "cpu", Type: i}))
	} else {
		add("cpu", i)
	}
	add(f.state, l)
	for _, name := range []string{"flags", "pid", "tgid", "exit_state"} {
		add(name, i)
	}
	for _, name := range []string{"stack", "real_parent", "mm", "signal"} {
		add(name, p)
	}
	add("on_cpu", i)
	add("tasks", list)
	add("thread_node", list)
	add("comm", typestest.Text(16))
	add("thread", typestest.Struct("thread_struct", typestest.Member{Name: "sp", Type: l}))
	counters := btf.Type(typestest.Struct("mm_rss_stat", typestest.Member{Name: "count", Type: typestest.Array(l, 4)}))
	counter := typestest.Struct("percpu_counter", typestest.Member{Name: "count", Type: l}, typestest.Member{Name: "counters", Type: p})
	if f.perCPURSS {
		counters = typestest.Array(counter, 4)
	} else {
		add("rss_stat", typestest.Struct("task_rss_stat", typestest.Member{Name: "events", Type: i}, typestest.Member{Name: "count", Type: typestest.Array(i, 4)}))
	}
	return []btf.Type{
		typestest.Struct("task_struct", members...),
		typestest.Struct("signal_struct", typestest.Member{Name: "live", Type: i}, typestest.Member{Name: "thread_head", Type: list}),
		typestest.Struct("rq", typestest.Member{Name: "lock", Type: l}, typestest.Member{Name: "curr", Type: p}, typestest.Member{Name: "idle", Type: p}),
		typestest.Struct("mm_struct", typestest.Member{Name: "pgd", Type: p}, typestest.Member{Name: "total_vm", Type: l}, typestest.Member{Name: "rss_stat", Type: counters}),
		typestest.Struct("inactive_task_frame", typestest.Member{Name: "bx", Type: l}, typestest.Member{Name: "bp", Type: l}, typestest.Member{Name: "ret_addr", Type: l}),
		counter,
		typestest.Struct("pcpu_hot", typestest.Member{Name: "other", Type: l}, typestest.Member{Name: "current_task", Type: p}),
	}
}

// newMachine returns a kernel with the idle tasks of two processors and no process.
func newMachine(f form) *machine { return machineOf(f, structures(f)) }

// machineOf is newMachine with other structures.
func machineOf(f form, list []btf.Type) *machine {
	m := &machine{Kernel: typestest.New(list...), form: f}
	m.Names["__start_init_stack"] = 0x1000
	m.Names["__end_init_stack"] = 0x1000 + stackSize
	m.WriteVirt(m.Variable("nr_cpu_ids", 4), kerneltest.Uint32(3))
	m.WriteVirt(m.Variable("__cpu_possible_mask", 8), kerneltest.Uint64(3))
	m.WriteVirt(m.Variable("__cpu_online_mask", 8), kerneltest.Uint64(1))
	offsets := m.Variable("__per_cpu_offset", 24)
	m.Names["runqueues"] = 0x40 // an offset, as on x86_64
	m.init = m.task(0, 0, "swapper/0", 0)
	m.Names["init_task"] = m.init
	second := m.task(0, 0, "swapper/1", m.init)
	for cpu, idle := range []mem.VirtAddr{m.init, second} {
		area := m.Space(4096)
		m.WriteVirt(offsets+mem.VirtAddr(8*cpu), kerneltest.Uint64(uint64(area)))
		m.Set(area+0x40, "rq", "idle", uint64(idle))
		m.run(cpu, idle)
	}
	m.processes = []mem.VirtAddr{m.Member(m.init, "task_struct", "tasks")}
	m.Link(m.processes...)
	return m
}

// run makes a task the current one of a processor.
func (m *machine) run(cpu int, task mem.VirtAddr) {
	offset, err := m.Open().ReadUint64(m.Names["__per_cpu_offset"] + mem.VirtAddr(8*cpu))
	if err != nil {
		panic(err)
	}
	m.Set(mem.VirtAddr(offset)+0x40, "rq", "curr", uint64(task))
}

func (m *machine) task(pid, tgid int, comm string, parent mem.VirtAddr) mem.VirtAddr {
	at := m.Make("task_struct")
	m.Set(at, "task_struct", "pid", uint64(pid))
	m.Set(at, "task_struct", "tgid", uint64(tgid))
	m.SetText(at, "task_struct", "comm", comm)
	m.Set(at, "task_struct", "real_parent", uint64(parent))
	m.Set(at, "task_struct", "stack", uint64(m.Space(4096)))
	node := m.Member(at, "task_struct", "thread_node")
	signal := m.Make("signal_struct")
	m.Link(m.Member(signal, "signal_struct", "thread_head"), node)
	m.Set(at, "task_struct", "signal", uint64(signal))
	return at
}

// process adds a process.
func (m *machine) process(pid int, comm string, parent mem.VirtAddr) mem.VirtAddr {
	at := m.task(pid, pid, comm, parent)
	m.processes = append(m.processes, m.Member(at, "task_struct", "tasks"))
	m.Link(m.processes...)
	return at
}

// threads adds a thread for each PID to a process.
func (m *machine) threads(leader mem.VirtAddr, tgid int, pids ...int) (list []mem.VirtAddr) {
	k := m.Open()
	signal, err := k.ReadUint64(m.Member(leader, "task_struct", "signal"))
	if err != nil {
		panic(err)
	}
	nodes := []mem.VirtAddr{m.Member(mem.VirtAddr(signal), "signal_struct", "thread_head"), m.Member(leader, "task_struct", "thread_node")}
	for _, pid := range pids {
		at := m.task(pid, tgid, fmt.Sprintf("thread-%d", pid), m.init)
		list = append(list, at)
		nodes = append(nodes, m.Member(at, "task_struct", "thread_node"))
	}
	m.Link(nodes...)
	return list
}

func (m *machine) reader(tb testing.TB) *tasks.Reader {
	tb.Helper()
	k := m.Open()
	areas, err := percpu.Load(k, m.Names)
	if err != nil {
		tb.Fatal(err)
	}
	r, err := tasks.New(k, m.Names, m.Types, areas)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// pids lists the PIDs of tasks as text.
func pids(list []tasks.Task) string {
	var all []string
	for _, t := range list {
		all = append(all, fmt.Sprint(t.PID))
	}
	return strings.Join(all, " ")
}

func TestList(t *testing.T) {
	for name, f := range forms {
		t.Run(name, func(t *testing.T) {
			m := newMachine(f)
			first := m.process(1, "init", m.init)
			daemon := m.process(70, "a b\x01c", first)
			thread := m.threads(daemon, 70, 71, 72)[1]
			m.process(2, "kthreadd", m.init)
			m.run(1, thread)
			cpu := "cpu"
			if f.cpuInInfo {
				cpu = "thread_info.cpu"
			}
			m.Set(daemon, "task_struct", cpu, 1)
			m.Set(daemon, "task_struct", f.state, 0x2)
			m.Set(thread, "task_struct", "flags", flagKthread)
			r := m.reader(t)
			list, err := r.List()
			if err != nil {
				t.Fatal(err)
			}
			if got := pids(list); got != "0 0 1 70 71 72 2" {
				t.Fatalf("got %s", got)
			}
			if got := list[1]; !got.Idle || got.CPU != 1 || got.Active || got.Comm != "swapper/1" || !got.Kernel() {
				t.Errorf("idle task: %+v", got)
			}
			if got := list[0]; !got.Active || got.Addr != m.init {
				t.Errorf("idle task that runs: %+v", got)
			}
			if got := list[3]; got.CPU != 1 || got.State.String() != "UN" || got.PPID != 1 || got.Comm != "a b\x01c" || got.Active {
				t.Errorf("process: %+v", got)
			}
			if got := list[5]; !got.Active || got.CPU != 1 || got.TGID != 70 || got.PID != 72 || got.Flags != flagKthread || got.Addr != thread {
				t.Errorf("thread: %+v", got)
			}
			if r.StackSize() != stackSize {
				t.Errorf("stacks of %d bytes", r.StackSize())
			}
		})
	}
}

func TestCPUs(t *testing.T) {
	m := newMachine(forms["6.12"])
	list, err := m.reader(t).CPUs()
	if err != nil || len(list) != 2 || !list[0].Online || list[1].Online || list[1].Number != 1 || list[0].Current != m.init {
		t.Errorf("got %+v, %v", list, err)
	}
}

// TestCPUsWithoutQueues has processors that still know themselves what they run.
func TestCPUsWithoutQueues(t *testing.T) {
	for symbol, at := range map[string]mem.VirtAddr{"current_task": 0x90, "pcpu_hot": 0x88} {
		m := newMachine(forms["6.12"])
		task := m.process(3, "runs", m.init)
		second, _ := m.Open().ReadUint64(m.Names["__per_cpu_offset"] + 8)
		m.WriteVirt(mem.VirtAddr(second)+0x90, kerneltest.Uint64(uint64(task)))
		m.Names[symbol] = at
		m.Names["runqueues"] = 0x7f000000 // nothing there
		r := m.reader(t)
		cpus, err := r.CPUs()
		if err == nil || len(cpus) != 1 || cpus[0].Number != 1 || cpus[0].Current != task || cpus[0].Idle != 0 {
			t.Errorf("%s: got %+v, %v", symbol, cpus, err)
		}
		list, err := r.List()
		if err == nil || pids(list) != "3" || !list[0].Active || list[0].CPU != 1 {
			t.Errorf("%s: got %+v, %v", symbol, list, err)
		}
	}
}

// TestUnlisted has a processor that runs a task that is on no list.
func TestUnlisted(t *testing.T) {
	m := newMachine(forms["6.1"])
	m.run(1, m.task(5, 5, "lost", m.init))
	list, err := m.reader(t).List()
	if err != nil || pids(list) != "0 0 5" || !list[2].Active || list[2].CPU != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestMemory(t *testing.T) {
	for name, f := range forms {
		m := newMachine(f)
		process := m.process(10, "big", m.init)
		thread := m.threads(process, 10, 11)[0]
		space := m.Make("mm_struct")
		m.Set(space, "mm_struct", "total_vm", 100)
		want := uint64(1 + 2 + 4)
		stat := m.Member(space, "mm_struct", "rss_stat")
		for i, n := range []uint64{1, 2, 1000, 4} {
			if !f.perCPURSS {
				m.WriteVirt(stat+mem.VirtAddr(8*i), kerneltest.Uint64(n))
				continue
			}
			m.WriteVirt(stat+mem.VirtAddr(16*i), kerneltest.Uint64(n))
			m.WriteVirt(stat+mem.VirtAddr(16*i+8), kerneltest.Uint64(uint64(f.parts+mem.VirtAddr(i)*f.step))) // a per-CPU address
		}
		if f.perCPURSS { // 5 pages more on one processor, 2 less on the other, for each of three counters; swap does not count
			for cpu, n := range []int32{5, -2} {
				offset, _ := m.Open().ReadUint64(m.Names["__per_cpu_offset"] + mem.VirtAddr(8*cpu))
				for i := range mem.VirtAddr(4) {
					m.WriteVirt(mem.VirtAddr(offset)+f.parts+i*f.step, kerneltest.Uint32(uint32(n+int32(i)*10)))
				}
			}
			want += 3*3 + 2*(0+10+30)
		} else {
			m.WriteVirt(m.Member(thread, "task_struct", "rss_stat.count")+4, kerneltest.Uint32(30))
			want += 30
		}
		for _, at := range []mem.VirtAddr{process, thread} {
			m.Set(at, "task_struct", "mm", uint64(space))
		}
		zombie := m.process(12, "gone", m.init)
		m.Set(zombie, "task_struct", "mm", uint64(space))
		m.Set(zombie, "task_struct", "exit_state", 0x20)
		broken := m.process(13, "broken", m.init)
		m.Set(broken, "task_struct", "mm", 0xffffffffc0000000)
		list, err := m.reader(t).List()
		if err != nil || pids(list) != "0 0 10 11 12 13" {
			t.Fatalf("%s: %v, %v", name, pids(list), err)
		}
		for _, got := range list[2:4] {
			if got.VSZ != 100*4096 || got.RSS != want*4096 || got.MemoryError != nil || got.Kernel() {
				t.Errorf("%s: %+v, want an RSS of %d pages", name, got, want)
			}
		}
		if got := list[4]; got.RSS != 0 || got.VSZ != 0 || got.State.String() != "ZO" || got.Kernel() {
			t.Errorf("%s: zombie %+v", name, got)
		}
		if got := list[5]; got.RSS != 0 || got.MemoryError == nil {
			t.Errorf("%s: process with a wild mm %+v", name, got)
		}
	}
}

func TestSaved(t *testing.T) {
	m := newMachine(forms["6.1"])
	task := m.process(9, "sleeper", m.init)
	stack := m.Space(stackSize)
	m.Set(task, "task_struct", "stack", uint64(stack))
	sp := stack + 0x3000
	m.Set(task, "task_struct", "thread.sp", uint64(sp))
	m.Set(sp, "inactive_task_frame", "bp", 0x1234)
	m.Set(sp, "inactive_task_frame", "ret_addr", 0xffffffff81000010)
	r := m.reader(t)
	list, err := r.List()
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Saved(list[2])
	want := tasks.Registers{IP: 0xffffffff81000010, SP: sp + 24, FP: 0x1234, ThreadSP: sp}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, wild := range []mem.VirtAddr{0, stack - 8, stack + stackSize - 23, stack + stackSize, 0xffffffffffffffff} {
		m.Set(task, "task_struct", "thread.sp", uint64(wild))
		if got, err := r.Saved(list[2]); err == nil {
			t.Errorf("stack pointer %v: got %+v", wild, got)
		}
	}
	list[2].Stack = 0
	if got, err := r.Saved(list[2]); err == nil || !strings.Contains(err.Error(), "has exited") {
		t.Errorf("without a stack: got %+v, %v", got, err)
	}
}

// TestSavedARM64 has a machine with pages of 64 KiB, on which a stack of 16 KiB is a part of one.
func TestSavedARM64(t *testing.T) {
	list := structures(forms["6.12"])
	task := list[0].(*btf.Struct)
	context := typestest.Struct("cpu_context", typestest.Member{Name: "fp", Type: typestest.Long}, typestest.Member{Name: "sp", Type: typestest.Long}, typestest.Member{Name: "pc", Type: typestest.Long})
	task.Members[len(task.Members)-1].Type = typestest.Struct("thread_struct", typestest.Member{Name: "cpu_context", Type: context})
	task.Size += 16
	m := typestest.New(list...)
	m.Machine = kerneltest.NewARM64Pages(16, 48, 48)
	at, stack := m.Make("task_struct"), uint64(0xffff800010004000)
	m.Names = typestest.Symbols{"init_task": at, "__start_init_stack": 0x1000, "__end_init_stack": 0x1000 + stackSize}
	for path, value := range map[string]uint64{"stack": stack, "thread.cpu_context.fp": 7, "thread.cpu_context.sp": stack + 0x3000, "thread.cpu_context.pc": 9} {
		m.Set(at, "task_struct", path, value)
	}
	r, err := tasks.New(m.Open(), m.Names, m.Types, nil)
	if err != nil {
		t.Fatal(err)
	}
	sleeper, err := r.Task(at)
	if err != nil {
		t.Fatal(err)
	}
	sp := mem.VirtAddr(stack + 0x3000)
	if got, err := r.Saved(sleeper); err != nil || got != (tasks.Registers{IP: 9, SP: sp, FP: 7, ThreadSP: sp}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, wild := range []uint64{0, stack - 8, stack + stackSize + 8} {
		m.Set(at, "task_struct", "thread.cpu_context.sp", wild)
		if got, err := r.Saved(sleeper); err == nil {
			t.Errorf("stack pointer %#x: got %+v", wild, got)
		}
	}
}

func TestStates(t *testing.T) {
	for state, want := range map[tasks.State]string{
		0: "RU", 1: "IN", 2: "UN", 0x402: "ID", 0x102: "UN", 4: "ST", 8: "TR", 0x10: "DE", 0x20: "ZO", 0x80: "DE",
		0x40: "PA", 0x2001: "IN", 0x8001: "IN", 0x1000: "UN", 0x800: "NE", 0x200: "WA", 1 << 30: "??", 0x104: "ST",
	} {
		if got := state.String(); got != want {
			t.Errorf("state %#x: got %q, want %q", uint32(state), got, want)
		}
	}
	if !tasks.State(0x102).Blocked() || tasks.State(0x402).Blocked() {
		t.Error("which states are blocked")
	}
}

func TestDamagedLists(t *testing.T) {
	var m *machine
	var all []mem.VirtAddr // PIDs 1 to 5
	next := func(at mem.VirtAddr) mem.VirtAddr { return m.Member(at, "task_struct", "tasks.next") }
	prev := func(at mem.VirtAddr) mem.VirtAddr { return m.Member(at, "task_struct", "tasks.prev") }
	write := func(at mem.VirtAddr, value uint64) { m.WriteVirt(at, kerneltest.Uint64(value)) }
	for name, tc := range map[string]struct {
		damage func()
		pids   string
		say    string
	}{
		"loop":       {func() { write(next(all[2]), uint64(next(all[0]))); write(prev(all[3]), uint64(next(all[4]))) }, "0 0 1 2 3 5 4", "which was there before"},
		"to nowhere": {func() { write(next(all[1]), 0) }, "0 0 1 2 5 4 3", "struct task_struct"},
		"both ways":  {func() { write(next(all[1]), 0xdead000000000100); write(prev(all[4]), 0xdead000000000122) }, "0 0 1 2 5", "struct task_struct"},
		"to itself":  {func() { write(next(all[0]), uint64(next(all[0]))) }, "0 0 1 5 4 3 2", "there before"},
		"no task":    {func() { write(next(all[1]), uint64(m.Space(8192))+4104) }, "0 0 1 2 5 4 3", "of this list"},
		"head":       {func() { write(m.processes[0], 8) }, "0 0 5 4 3 2 1", "struct task_struct"},
		"pid":        {func() { m.Set(all[2], "task_struct", "pid", 1<<31) }, "0 0 1 2 5 4", "pid"},
		"cpu":        {func() { m.Set(all[2], "task_struct", "thread_info.cpu", 1<<20) }, "0 0 1 2 5 4", "cpu"},
		"signal":     {func() { m.Set(all[2], "task_struct", "signal", 1<<20) }, "0 0 1 2 3 4 5", "threads of the task"},
		"no signal":  {func() { m.Set(all[2], "task_struct", "signal", 0) }, "0 0 1 2 3 4 5", ""},
		"thread loop": {func() {
			write(m.Member(all[2], "task_struct", "thread_node"), uint64(m.Member(all[2], "task_struct", "thread_node")))
		}, "0 0 1 2 3 4 5", "thread_node"},
		"thread wild": {func() { write(m.Member(all[2], "task_struct", "thread_node"), 0x10) }, "0 0 1 2 3 4 5", "struct task_struct"},
		"other thread": {func() {
			write(m.Member(all[2], "task_struct", "thread_node"), uint64(m.Member(all[3], "task_struct", "thread_node")))
		}, "0 0 1 2 3 4 5", "of this list"},
		"parent":  {func() { m.Set(all[2], "task_struct", "real_parent", 0x10) }, "0 0 1 2 3 4 5", "parent of the task"},
		"current": {func() { m.run(1, 0x10) }, "0 0 1 2 3 4 5", "struct task_struct"},
	} {
		t.Run(name, func(t *testing.T) {
			m, all = newMachine(forms["6.1"]), nil
			for pid := 1; pid <= 5; pid++ {
				all = append(all, m.process(pid, "p", m.init))
			}
			tc.damage()
			list, err := m.reader(t).List()
			got := pids(list)
			if got != tc.pids {
				t.Errorf("got %s, want %s", got, tc.pids)
			}
			if (err == nil) != (tc.say == "") || err != nil && !strings.Contains(err.Error(), tc.say) {
				t.Errorf("got error %v, want %q", err, tc.say)
			}
		})
	}
}

// TestCodeAlone has a kernel whose symbols are those of code alone.
func TestCodeAlone(t *testing.T) {
	m := newMachine(forms["6.1"])
	m.WriteVirt(m.Space(16), []byte("swapper is a word")) // no task
	first := m.process(1, "init", m.init)
	thread := m.threads(first, 1, 2)[0]
	m.Set(thread, "task_struct", "on_cpu", 1)
	m.Set(thread, "task_struct", "thread_info.cpu", 1)
	m.Names = typestest.Symbols{"_einittext": m.Image(0x8123)}
	r, err := tasks.New(m.Open(), m.Names, m.Types, nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.List()
	if err != nil || pids(list) != "0 1 2" || !list[0].Idle || list[0].Active || list[1].Active || !list[2].Active || list[2].CPU != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
	if cpus, err := r.CPUs(); err == nil {
		t.Errorf("processors: %+v", cpus)
	}
	if r.StackSize() != stackSize {
		t.Errorf("stacks of %d bytes", r.StackSize())
	}
	m.Set(first, "task_struct", "tasks.prev", 0x10)
	if _, err := tasks.New(m.Open(), m.Names, m.Types, nil); err == nil {
		t.Error("took an init_task to which the first process does not point back")
	}
	m.Set(first, "task_struct", "tasks.prev", uint64(m.processes[0]))
	m.WriteVirt(m.Image(0x8000), bytes.Repeat([]byte("swapper "), 65))
	if _, err := tasks.New(m.Open(), m.Names, m.Types, nil); err == nil {
		t.Error("read what looks like a task without end")
	}
	clear(m.Names)
	if _, err := tasks.New(m.Open(), m.Names, m.Types, nil); err == nil || !strings.Contains(err.Error(), "init_task") {
		t.Errorf("without any symbol: %v", err)
	}
}

func TestMissing(t *testing.T) {
	for i, gone := range []string{"task_struct", "signal_struct", "rq"} {
		m := newMachine(forms["6.1"])
		less := slices.Delete(structures(forms["6.1"]), i, i+1)
		k := m.Open()
		areas, err := percpu.Load(k, m.Names)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tasks.New(k, m.Names, typestest.New(less...).Types, areas); err == nil || !strings.Contains(err.Error(), gone) {
			t.Errorf("without %s: %v", gone, err)
		}
	}
}

// TestLongNames has BTF whose names would fill the memory.
func TestLongNames(t *testing.T) {
	m := newMachine(forms["6.1"])
	list := structures(forms["6.1"])
	task := list[0].(*btf.Struct)
	task.Members[slices.IndexFunc(task.Members, func(m btf.Member) bool { return m.Name == "comm" })].Type = typestest.Text(60000)
	m.Types = typestest.New(list...).Types
	if r, err := tasks.New(m.Open(), m.Names, m.Types, nil); err == nil || !strings.Contains(err.Error(), "comm") {
		t.Errorf("got %v, %v", r, err)
	}
}

// TestMemoryNotCountedAsKnown has a kernel whose counters are of a form to come.
func TestMemoryNotCountedAsKnown(t *testing.T) {
	m := newMachine(forms["6.1"])
	list := structures(forms["6.1"])
	list[3] = typestest.Struct("mm_struct", typestest.Member{Name: "total_vm", Type: typestest.Long})
	m.Types = typestest.New(list...).Types
	m.Set(m.process(10, "user", m.init), "task_struct", "mm", uint64(m.Space(64)))
	tasks, err := m.reader(t).List()
	if err != nil || pids(tasks) != "0 0 10" || tasks[2].RSS != 0 || !errors.Is(tasks[2].MemoryError, types.ErrNotFound) {
		t.Errorf("got %+v, %v", tasks, err)
	}
}

// TestManyCounters: what is read of processors is bounded, and the process that is left out says so.
func TestManyCounters(t *testing.T) {
	for name, want := range map[string]int{"6.1": 0, "6.12": 1} { // before 6.2, processors have no parts
		m := newMachine(forms[name])
		for _, pid := range []int{10, 11} {
			m.Set(m.process(pid, "user", m.init), "task_struct", "mm", uint64(m.Make("mm_struct")))
		}
		r := m.reader(t)
		r.SetMaxParts(3) // one process on two processors
		list, err := r.List()
		if err != nil || pids(list) != "0 0 10 11" || list[2].MemoryError != nil || (list[3].MemoryError != nil) != (want == 1) {
			t.Errorf("%s: got %+v, %v", name, list, err)
		}
	}
}

// TestTwoMemories has BTF with two types of one name, of which one lacks what the other has at a lower offset.
func TestTwoMemories(t *testing.T) {
	m := newMachine(forms["6.1"])
	long := typestest.Member{Name: "other", Type: typestest.Array(typestest.Long, 4)}
	total := typestest.Member{Name: "total_vm", Type: typestest.Long}
	first := typestest.Struct("mm_struct", total, typestest.Member{Name: "more", Type: typestest.Array(typestest.Long, 3)}, typestest.Member{Name: "rss_stat", Type: typestest.Struct("mm_rss_stat", long)})
	list := structures(forms["6.1"])
	m.Types = typestest.New(slices.Insert(list, 3, btf.Type(first))...).Types
	m.Set(m.process(10, "user", m.init), "task_struct", "mm", uint64(m.Space(64)))
	tasks, err := m.reader(t).List()
	if err != nil || pids(tasks) != "0 0 10" || tasks[2].RSS != 0 || tasks[2].MemoryError == nil {
		t.Errorf("got %+v, %v", tasks, err)
	}
}

// FuzzList overwrites memory around the tasks.
func FuzzList(f *testing.F) {
	f.Add(uint32(0), uint64(0), uint32(64), uint64(1))
	f.Add(uint32(0x150), uint64(0xffffffff81010000), uint32(0x300), uint64(0xdead000000000100))
	f.Fuzz(func(t *testing.T, at uint32, value uint64, at2 uint32, value2 uint64) {
		m := newMachine(forms["6.12"])
		leader := m.process(1, "init", m.init)
		m.threads(leader, 1, 2, 3)
		end := uint32(m.Space(8) - m.init)
		m.WriteVirt(m.init+mem.VirtAddr(at%end), kerneltest.Uint64(value))
		m.WriteVirt(m.init+mem.VirtAddr(at2%end), kerneltest.Uint64(value2))
		k := m.Open()
		areas, err := percpu.Load(k, m.Names)
		if err != nil {
			return
		}
		r, err := tasks.New(k, m.Names, m.Types, areas)
		if err != nil {
			return
		}
		list, err := r.List()
		if len(list) < 5 && err == nil {
			t.Errorf("%d tasks, and no error", len(list))
		}
		for _, task := range list {
			_, _ = r.Saved(task)
		}
	})
}
