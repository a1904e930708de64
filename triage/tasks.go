package triage

import (
	"cmp"
	"slices"

	"github.com/corehaul/corehaul/kernel/tasks"
)

// Task is a thread of the kernel or of a process.
type Task struct {
	PID     int     `json:"pid"`
	TGID    int     `json:"tgid"` // PID of the first thread of its process
	PPID    int     `json:"ppid"`
	CPU     int     `json:"cpu"`
	Task    string  `json:"task"`   // address of its task_struct, hexadecimal
	State   string  `json:"state"`  // as the ps command of crash prints it: RU, IN, UN, ID, ZO...
	Active  bool    `json:"active"` // it was running on its CPU
	Kernel  bool    `json:"kernel"` // it is a thread of the kernel
	VSZ     uint64  `json:"vsz_bytes"`
	RSS     uint64  `json:"rss_bytes"`   // of the whole process
	Percent float64 `json:"mem_percent"` // RSS of all memory
	Comm    string  `json:"comm"`
}

// Tasks lists all tasks by PID, the idle ones of the CPUs first. What cannot be read is in Unread.
func (m *Memory) Tasks() (list []Task) {
	total := uint64(0)
	if m.tasks != nil {
		m.part("the size of memory", func() (err error) {
			total, err = m.tasks.TotalPages()
			return err
		})
	}
	for _, t := range m.list() {
		list = append(list, m.task(t, total<<m.k.PageShift()))
	}
	return list
}

// readTasks reads all tasks, sorted by PID.
func (m *Memory) readTasks() (list []tasks.Task) {
	if m.tasks == nil {
		return nil
	}
	m.part("the tasks", func() (err error) {
		list, err = m.tasks.List()
		return err
	})
	slices.SortStableFunc(list, func(a, b tasks.Task) int { return cmp.Compare(a.PID, b.PID) })
	return list
}

// task converts a task. total is the size of memory in bytes, 0 if it is unknown.
func (m *Memory) task(t tasks.Task, total uint64) Task {
	if t.MemoryError != nil {
		m.cannot("memory of task "+hexAddr(t.Addr), t.MemoryError)
	}
	c := Task{
		PID: t.PID, TGID: t.TGID, PPID: t.PPID, CPU: t.CPU, Task: hexAddr(t.Addr), State: t.State.String(), Active: t.Active,
		Kernel: t.Kernel(), VSZ: t.VSZ, RSS: t.RSS, Comm: t.Comm,
	}
	if total > 0 {
		c.Percent = 100 * float64(t.RSS) / float64(total)
	}
	return c
}
