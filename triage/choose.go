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
			return nil, fmt.Errorf("the machine has no CPU %d that was running; the CPUs are 0 to %d", w.CPU, all[len(all)-1].CPU)
		}
		return all[i : i+1], nil
	}
	if i := slices.IndexFunc(all, func(b Backtrace) bool { return b.CPU == m.CrashedCPU() }); i >= 0 {
		crashed := all[i]
		all = append([]Backtrace{crashed}, slices.Delete(all, i, i+1)...)
	} else if !w.CPUs {
		m.cannot("the CPU that crashed", fmt.Errorf("neither memory nor log name it; 'corehaul bt --all' prints all CPUs"))
		return nil, nil
	}
	if !w.CPUs {
		all = all[:1]
	}
	return all, nil
}

// backtraceOf returns the backtrace of a task by PID or address.
func (m *Memory) backtraceOf(name string) ([]Backtrace, error) {
	if m.tasks == nil {
		return nil, nil
	}
	is, err := taskNamed(name)
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(slices.Clone(m.list()), func(t tasks.Task) bool { return !is(t) })
	if len(found) == 0 {
		return nil, fmt.Errorf("the dump has no task %s", name)
	}
	var traces []Backtrace
	for _, t := range found {
		if !t.Active {
			traces = append(traces, m.sleeping(t))
			continue
		}
		for _, b := range m.CPUs() {
			if b.Task == hexAddr(t.Addr) {
				traces = append(traces, b)
			}
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

// CrashedCPU returns the CPU that crashed: panic_cpu (kernel/panic.c since 4.5), else the one that the log or the file names. It
// is -1 if none does.
func (m *Memory) CrashedCPU() int {
	if m.symbols != nil {
		if at, ok := m.symbols.Address("panic_cpu"); ok {
			if n, err := m.k.ReadUint32(at); err == nil && int32(n) >= 0 {
				return int(n)
			}
		}
	}
	if said, err := m.logReport(); err == nil && said.CPU != nil {
		return *said.CPU
	}
	return m.img.Info().CurrentCPU
}
