package triage

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/kernel/tasks"
	"github.com/corehaul/corehaul/mem"
)

// Which chooses backtraces. Without CPUs, CPU or Task it is the task that crashed.
type Which struct {
	CPUs bool   // those of all CPUs, the one that crashed first
	CPU  int    // that of one CPU; -1 for none
	Task string // that of one task: its PID, or the hexadecimal address of its task_struct; "" for none
}

// Backtraces returns the chosen backtraces. The error says that there is no such CPU or task. If nothing can be read, the list is
// empty, and Unread says why.
func (m *Memory) Backtraces(w Which) ([]Backtrace, error) {
	if w.Task != "" {
		return m.backtraceOf(w.Task)
	}
	all := m.CPUs()
	switch {
	case len(all) == 0:
		return nil, nil
	case w.CPU >= 0:
		i := slices.IndexFunc(all, func(b Backtrace) bool { return b.CPU == w.CPU })
		if i < 0 {
			return nil, fmt.Errorf("there is no CPU %d whose task is known; the last one is CPU %d", w.CPU, all[len(all)-1].CPU)
		}
		return all[i : i+1], nil
	}
	cpu := m.CrashedCPU()
	if i := slices.IndexFunc(all, func(b Backtrace) bool { return b.CPU == cpu }); i >= 0 {
		crashed := all[i]
		all = append([]Backtrace{crashed}, slices.Delete(all, i, i+1)...)
	} else if !w.CPUs {
		why := "neither memory nor log name it"
		if cpu >= 0 {
			why = fmt.Sprintf("it is CPU %d, whose task is not known", cpu)
		}
		m.cannot("the CPU that crashed", fmt.Errorf("%s; 'corehaul bt --all' prints all CPUs", why))
		return nil, nil
	}
	if !w.CPUs {
		all = all[:1]
	}
	return all, nil
}

// backtraceOf returns the backtrace of a task by PID or address.
func (m *Memory) backtraceOf(name string) ([]Backtrace, error) {
	is, err := taskNamed(name)
	if err != nil || m.tasks == nil {
		return nil, err
	}
	found := slices.DeleteFunc(slices.Clone(m.list()), func(t tasks.Task) bool { return !is(t) })
	if len(found) == 0 {
		return nil, fmt.Errorf("the dump has no task %s", name)
	}
	running := map[string]Backtrace{}
	if slices.ContainsFunc(found, func(t tasks.Task) bool { return t.Active }) {
		for _, b := range m.CPUs() {
			running[b.Task] = b
		}
	}
	var traces []Backtrace
	for _, t := range found {
		b, ok := running[hexAddr(t.Addr)]
		switch {
		case ok:
			traces = append(traces, b)
		case t.Active:
			m.cannot("the stack of task "+hexAddr(t.Addr), fmt.Errorf("it ran on CPU %d, which cannot be read", t.CPU))
		default:
			traces = append(traces, m.sleeping(t))
		}
	}
	return traces, nil
}

// taskNamed returns whether a task has a name: a decimal PID, or a hexadecimal address with or without 0x.
func taskNamed(name string) (func(tasks.Task) bool, error) {
	if pid, err := strconv.Atoi(name); err == nil && len(name) < 12 {
		return func(t tasks.Task) bool { return t.PID == pid }, nil
	}
	at, err := strconv.ParseUint(strings.TrimPrefix(name, "0x"), 16, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a PID nor the address of a task_struct", name)
	}
	return func(t tasks.Task) bool { return t.Addr == mem.VirtAddr(at) }, nil
}

// CrashedCPU returns the CPU that panicked: panic_cpu (kernel/panic.c since 4.5), else the one that the log or the file names. It
// is -1 if none does. In a file, 0 may stand for a CPU that its writer did not know.
func (m *Memory) CrashedCPU() int {
	if cpu := m.panicCPU(); cpu >= 0 {
		return cpu
	}
	if said, _ := m.said(); said != nil && said.CPU != nil {
		return *said.CPU
	}
	if cpu := m.img.Info().CurrentCPU; cpu > 0 {
		return cpu
	}
	return -1
}

// panicCPU reads panic_cpu, -1 if it is not known.
func (m *Memory) panicCPU() int {
	cpu := int32(-1)
	if m.symbols == nil {
		return int(cpu)
	}
	if at, ok := m.symbols.Address("panic_cpu"); ok {
		m.part("panic_cpu", func() error {
			n, err := m.k.ReadUint32(at)
			if err == nil {
				cpu = int32(n) // it is signed
			}
			return err
		})
	}
	return int(cpu)
}
