package triage

import (
	"fmt"

	"github.com/corehaul/corehaul/kernel/tasks"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// notes are the registers of the CPUs, which the kernel wrote into the notes of the dump as it stopped them.
type notes struct {
	list   []vmcore.CPU
	byPID  map[int]vmcore.CPU          // those of tasks other than the idle ones
	idleOn map[mem.VirtAddr]vmcore.CPU // those of idle tasks, by the stack
}

// smallestStack is the size of a kernel stack in bytes, which is aligned to it, or to more (THREAD_SIZE and THREAD_ALIGN of x86_64 and
// arm64; KASAN and pages of 64 KiB have larger ones).
const smallestStack = 16 << 10

func (m *Memory) readNotes() notes {
	n := notes{byPID: map[int]vmcore.CPU{}, idleOn: map[mem.VirtAddr]vmcore.CPU{}, list: m.img.Info().CPUs}
	for _, c := range n.list {
		if c.PID != 0 {
			n.byPID[int(c.PID)] = c
		} else if regs, err := unwind.ParseRegisters(m.k.Machine(), c.Regs); err == nil {
			n.idleOn[regs.SP()&^(smallestStack-1)] = c
		}
	}
	return n
}

// of returns the registers of the i-th of all CPUs, which ran the task t. Notes are in the order of the CPUs, but a CPU that was
// offline or could not be stopped has none (arch/x86/kernel/crash.c). So the PID has to agree. All idle tasks have the PID 0: there,
// the stack pointer has to be in the task's stack, or every CPU has to have a note.
func (n notes) of(t tasks.Task, i, all int) (note vmcore.CPU, ok bool) {
	if t.PID != 0 {
		note, ok = n.byPID[t.PID]
		return note, ok
	}
	if note, ok = n.idleOn[t.Stack]; ok && t.Stack != 0 {
		return note, true
	}
	if len(n.list) == all && n.list[i].PID == 0 {
		return n.list[i], true
	}
	return note, false
}

// walkNote walks the stack of a CPU from the registers of its note. task is what it ran, 0 if that is not known.
func (m *Memory) walkNote(b *Backtrace, task mem.VirtAddr, note vmcore.CPU) {
	m.part(fmt.Sprintf("the stack of CPU %d", b.CPU), func() error {
		if m.unwinder == nil {
			b.End = "the stacks of this kernel cannot be walked"
			return nil
		}
		regs, err := unwind.ParseRegisters(m.k.Machine(), note.Regs)
		if err != nil {
			b.End = err.Error()
			return nil
		}
		if regs.IP() == 0 && regs.SP() == 0 {
			b.End = "the note of this CPU has no registers"
			return nil
		}
		m.walk(b, func() unwind.Trace { return m.unwinder.Unwind(task, regs) })
		return nil
	})
}
