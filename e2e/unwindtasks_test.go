package e2e

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/tasks"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/mem"
)

// TestUnwindTasks holds the stacks of tasks that slept to what /proc/PID/stack said just before the panic.
func TestUnwindTasks(t *testing.T) {
	t.Parallel()
	for _, s := range []lab.Scenario{
		{Kernel: "5.10"},
		{Kernel: "6.1", Busy: true, MemMiB: 1536},
		{Kernel: "6.1", CPU: "max"},
		{Kernel: "6.12", Busy: true, MemMiB: 1536},
		{Kernel: "6.12-arm64", CPU: "max"},
		{Kernel: "backports-arm64-16k", CPU: "cortex-a76"},
	} {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			captured, err := lab.CaptureELF(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			record, err := os.ReadFile(captured.Tasks)
			if err != nil {
				t.Fatal(err)
			}
			unwindTasksCompare(t, openDump(t, captured), unwindTasksRecord(string(record)))
		})
	}
}

// unwindTask is what /proc said of a task: the start of its stat, and its stack.
type unwindTask struct {
	state string
	stack []string
}

// unwindTasksHead is the first line of a task: PID, name and state.
var unwindTasksHead = regexp.MustCompile(`^(\d+) \(.*\) ([A-Z]) `)

// unwindTasksRecord reads the record of all tasks, by PID.
func unwindTasksRecord(record string) map[int]unwindTask {
	list := map[int]unwindTask{}
	for _, part := range strings.Split(record, "== ")[1:] {
		head, stack, _ := strings.Cut(part, "\n")
		m := unwindTasksHead.FindStringSubmatch(head)
		if m == nil {
			continue
		}
		pid, _ := strconv.Atoi(m[1])
		task := unwindTask{state: m[2]}
		for _, line := range strings.Split(stack, "\n") {
			if name, ok := strings.CutPrefix(line, "[<0>] "); ok {
				task.stack = append(task.stack, name)
			}
		}
		list[pid] = task
	}
	return list
}

// unwindTasksCompare compares the tasks that slept both times in a place that did not change. Others went on between the record
// and the panic: those have another first frame.
func unwindTasksCompare(t *testing.T, d *lab.Dump, record map[int]unwindTask) {
	t.Helper()
	u, err := unwind.New(d.Kernel, d.Symbols, unwind.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := d.Tasks.List()
	if err != nil {
		t.Fatal(err)
	}
	same, moved := 0, 0
	for _, task := range list {
		want, ok := record[task.PID]
		if !ok || task.Active || want.state == "R" || len(want.stack) == 0 || tasksLetters[task.State.String()] != want.state {
			continue
		}
		trace := unwindTasksTrace(t, d, u, task)
		if !trace.Complete && !unwindTasksInModule(want.stack) {
			t.Errorf("%d (%s): %s", task.PID, task.Comm, trace.End)
		}
		switch got := unwindTasksSlept(d, trace); {
		case slices.Equal(got, want.stack):
			same++
		case len(got) > 0 && got[0] != want.stack[0], unwindTasksInModule(want.stack):
			moved++
		default:
			t.Errorf("%d (%s): got %q, want %q", task.PID, task.Comm, got, want.stack)
		}
	}
	t.Logf("%d stacks are the same, %d tasks went on", same, moved)
	if same < 20 || moved > same/4 {
		t.Errorf("only %d stacks are the same, %d tasks went on", same, moved)
	}
}

// unwindTasksInModule reports whether a stack has a frame in a module.
func unwindTasksInModule(stack []string) bool {
	return slices.ContainsFunc(stack, func(line string) bool { return strings.HasSuffix(line, "]") })
}

func unwindTasksTrace(t *testing.T, d *lab.Dump, u *unwind.Unwinder, task tasks.Task) unwind.Trace {
	t.Helper()
	saved, err := d.Tasks.Saved(task)
	if err != nil {
		t.Errorf("%d (%s): %v", task.PID, task.Comm, err)
	}
	return u.UnwindSwitched(0, saved.ThreadSP, saved.FP, saved.IP)
}

// unwindTasksSlept are the frames that /proc/PID/stack has: not those of the scheduler (in_sched_functions in
// kernel/sched/core.c), and not those of user mode.
func unwindTasksSlept(d *lab.Dump, trace unwind.Trace) []string {
	start, _ := d.Symbols.Address("__sched_text_start")
	end, _ := d.Symbols.Address("__sched_text_end")
	scheduler := func(a mem.VirtAddr) bool { return start <= a && a < end }
	trace.Frames = slices.DeleteFunc(slices.Clone(trace.Frames), func(f unwind.Frame) bool { return scheduler(f.IP) })
	return unwindNames(d.Symbols, trace)
}
