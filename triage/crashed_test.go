package triage

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/kerneltest"
	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/kernel/tasks"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/vmcoreinfo"
)

// noted is a dump with the notes of CPUs alone.
type noted struct {
	vmcore.Image
	info vmcore.Info
}

func (n *noted) Info() *vmcore.Info { return &n.info }

// note is that of a CPU of x86_64 whose stack pointer is sp.
func note(pid int32, sp mem.VirtAddr) vmcore.CPU {
	const registers, spAt = 27, 19 // user_regs_struct in arch/x86/include/asm/user_64.h
	b := make([]byte, registers*8)
	binary.LittleEndian.PutUint64(b[spAt*8:], uint64(sp))
	return vmcore.CPU{PID: pid, Regs: b}
}

// TestNoteOfCPU finds the registers of a CPU where others have no note, and takes none that may be another CPU's.
func TestNoteOfCPU(t *testing.T) {
	const stack0, stack1, stack2, elsewhere = 0xffffc90000000000, 0xffffc90000010000, 0xffffc90000020000, 0xfffffe0000001000
	k, err := kernel.New(kerneltest.NewX86(4).Config())
	if err != nil {
		t.Fatal(err)
	}
	idle := func(stack mem.VirtAddr) tasks.Task { return tasks.Task{Stack: stack} }
	for _, tc := range []struct {
		name  string
		notes []vmcore.CPU
		task  tasks.Task
		i, of int // the CPU, of how many
		want  int // index of the note, -1 for none
	}{
		{"in order", []vmcore.CPU{note(7, 0), note(0, stack1+0x3ff8)}, idle(stack1), 1, 2, 1},
		{"by PID", []vmcore.CPU{note(0, stack1), note(7, 0)}, tasks.Task{PID: 7}, 0, 3, 1},
		{"of no note", []vmcore.CPU{note(0, stack1), note(0, stack2)}, tasks.Task{PID: 7}, 1, 3, -1},
		{"CPU 0 has no note", []vmcore.CPU{note(0, stack1+8), note(0, stack2+8)}, idle(stack2), 2, 3, 1},
		{"CPU 0 has no note, and is asked for", []vmcore.CPU{note(0, stack1+8), note(0, stack2+8)}, idle(stack0), 0, 3, -1},
		{"on another stack, with all notes", []vmcore.CPU{note(0, stack0), note(0, elsewhere), note(0, stack2)}, idle(stack1), 1, 3, 1},
		{"on another stack, with a note missing", []vmcore.CPU{note(0, stack0), note(0, elsewhere)}, idle(stack1), 1, 3, -1},
	} {
		m := &Memory{k: k, img: &noted{info: vmcore.Info{CPUs: tc.notes}}}
		got, ok := m.readNotes().of(tc.task, tc.i, tc.of)
		switch {
		case ok != (tc.want >= 0):
			t.Errorf("%s: %v", tc.name, ok)
		case ok && &got.Regs[0] != &tc.notes[tc.want].Regs[0]:
			t.Errorf("%s: the note of another CPU", tc.name)
		}
	}
}

// TestCrashedTask tells the task that the log blames from the one that panicked because of it.
func TestCrashedTask(t *testing.T) {
	cpu, other, pid, hung := 1, 2, 30, 77
	list := []tasks.Task{{PID: 30, Comm: "khungtaskd", Addr: 0x1000}, {PID: 77, Comm: "mount", Addr: 0x2000}}
	stack := Backtrace{PID: pid, CPU: cpu, Comm: "khungtaskd", Task: hexAddr(0x1000), Active: true, Frames: []Frame{{Function: "__crash_kexec"}}}
	blocked := Backtrace{PID: hung, CPU: 0, Comm: "mount", Task: hexAddr(0x2000), Frames: []Frame{{Function: "__schedule"}}}
	for name, tc := range map[string]struct {
		said     *oops.Report
		panicked int
		comm     string
		function string
		stack    *Backtrace
	}{
		"same task":          {&oops.Report{CPU: &cpu, PID: &pid, Comm: "khungtaskd", IP: &oops.Location{Function: "fault"}}, 1, "khungtaskd", "fault", &stack},
		"a task that hangs":  {&oops.Report{PID: &hung, Comm: "mount"}, 1, "mount", "", &blocked},
		"one with its PID":   {&oops.Report{PID: &hung, Comm: "umount"}, 1, "umount", "", nil},
		"a CPU that stalls":  {&oops.Report{CPU: &other, Comm: "busy", IP: &oops.Location{Function: "loop"}}, 1, "busy", "loop", nil},
		"who is not known":   {&oops.Report{}, 1, "khungtaskd", "", &stack},
		"no log":             {nil, 1, "khungtaskd", "__crash_kexec", &stack},
		"no log, and no CPU": {nil, -1, "", "", nil},
	} {
		m := &Memory{img: &noted{info: vmcore.Info{CurrentCPU: tc.panicked}}, list: func() []tasks.Task { return list }}
		m.said = func() (*oops.Report, bool) { return nil, false }
		r := &Report{Backtraces: []Backtrace{stack}, Blocked: []Backtrace{blocked}}
		if tc.said != nil {
			r.takeLog(tc.said)
		}
		r.takeCrashed(m)
		if c := r.Crash; c.Comm != tc.comm || c.Function != tc.function {
			t.Errorf("%s: %+v", name, c)
		}
		got := r.Crashed()
		if (got == nil) != (tc.stack == nil) || got != nil && got.Task != tc.stack.Task {
			t.Errorf("%s: the stack is %+v", name, got)
		}
	}
}

// TestUnreadSaysMore: a list that was cut says so.
func TestUnreadSaysMore(t *testing.T) {
	m := &Memory{}
	for i := range maxUnread + 3 {
		m.cannot("a part", fmt.Errorf("error %d", i))
	}
	if n := len(m.unread); n != maxUnread || m.unread[n-1] != "more that is not listed" {
		t.Errorf("%d lines, the last is %q", n, m.unread[n-1])
	}
}

// TestFramesAreBounded: hostile memory has as many stacks as it likes.
func TestFramesAreBounded(t *testing.T) {
	m := &Memory{}
	b := Backtrace{}
	for range 2 * maxFrames / 1024 {
		b = Backtrace{}
		m.walk(&b, func() unwind.Trace { m.frames += 1024; return unwind.Trace{} })
	}
	if m.frames != maxFrames || b.End == "" {
		t.Errorf("%d frames, the last stack ended because %q", m.frames, b.End)
	}
}

// TestNothingRead makes a report of a dump that has neither a log nor memory: it has empty sources, and says why.
func TestNothingRead(t *testing.T) {
	r := OfDump(Open(&noted{info: vmcore.Info{VMCOREINFO: &vmcoreinfo.Info{}}}), nil)
	if b, err := json.Marshal(r); err != nil || !strings.Contains(string(b), `"sources":[]`) || len(r.Unread) == 0 {
		t.Errorf("%s, %v", b, err)
	}
}
