package e2e

import (
	"cmp"
	"debug/elf"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/tasks"
)

// openDump opens a captured dump until the end of the test.
func openDump(t *testing.T, captured interface{ Open() (*lab.Dump, error) }) *lab.Dump {
	t.Helper()
	d, err := captured.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// tasksPS prints tasks as crash's ps, with single spaces.
func tasksPS(t *testing.T, r *tasks.Reader, list []tasks.Task) string {
	t.Helper()
	total, err := r.TotalPages()
	if err != nil {
		t.Fatal(err)
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b tasks.Task) int { return cmp.Compare(a.PID, b.PID) })
	var out strings.Builder
	for _, task := range list {
		mark, comm := "", task.Comm
		if task.Active {
			mark = "> "
		}
		if task.Kernel() {
			comm = "[" + comm + "]"
		}
		const page, kib = 4096, 1024
		fmt.Fprintf(&out, "%s%d %d %d %x %v %.1f %d %d %s\n", mark, task.PID, task.PPID, task.CPU, uint64(task.Addr), task.State,
			float64(task.RSS/page*100)/float64(total), task.VSZ/kib, task.RSS/kib, comm)
	}
	return out.String()
}

// tasksSpaces drops the heading and the columns of a table of crash.
func tasksSpaces(table string) string {
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(table), "\n")[1:] {
		out.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	return out.String()
}

// tasksFrames are the first two frames of tasks in "foreach bt": task_struct, stack pointer, address.
var tasksFrames = regexp.MustCompile(`TASK: ([0-9a-f]{16}) .*\n #0 \[([0-9a-f]{16})\] __schedule at ([0-9a-f]{16})`)

// TestTasks compares the tasks, the memory that they use, and the registers with which those that slept will go on, with what
// crash says.
func TestTasks(t *testing.T) {
	t.Parallel()
	for _, s := range []lab.Scenario{
		{Kernel: "5.10", Kexec: "c"},
		{Kernel: "6.1", Kexec: "c"},
		{Kernel: "6.12", Kexec: "c"},
		{Kernel: "6.1", Kexec: "c", Busy: true, MemMiB: 1536},
		{Kernel: "6.12", Kexec: "c", Busy: true, MemMiB: 1536},
	} {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			c := tasksCapture(t, s)
			want := judgesCrashOriginal(t, c, "ps", "foreach bt")
			d := openDump(t, c)
			list, err := d.Tasks.List()
			if err != nil {
				t.Fatal(err)
			}
			judgesSame(t, map[string]string{"ps": tasksPS(t, d.Tasks, list)}, map[string]string{"ps": tasksSpaces(want["ps"])})
			tasksSameRegisters(t, d.Tasks, list, want["foreach bt"])
		})
	}
}

func tasksCapture(t *testing.T, s lab.Scenario) *lab.Captured {
	t.Helper()
	c, err := lab.CaptureELF(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tasksSameRegisters compares with the first frames of sleeping tasks, for which crash gives the place of the return
// address where tasks.Registers has the stack pointer after the return.
func tasksSameRegisters(t *testing.T, r *tasks.Reader, list []tasks.Task, bt string) {
	t.Helper()
	want := map[string]string{}
	for _, m := range tasksFrames.FindAllStringSubmatch(bt, -1) {
		want[m[1]] = m[2] + " " + m[3]
	}
	same := 0
	for _, task := range list {
		w, ok := want[task.Addr.String()]
		if !ok || task.Active {
			continue
		}
		saved, err := r.Saved(task)
		if got := fmt.Sprintf("%v %v", saved.SP-8, saved.IP); err != nil || got != w {
			t.Errorf("registers of %d (%s): got %s, %v, want %s", task.PID, task.Comm, got, err, w)
			continue
		}
		same++
	}
	if same < len(list)/2 {
		t.Errorf("crash gave the first frames of %d of %d tasks: there are too few to compare", same, len(list))
	}
}

// tasksStat is a line of the guest's record: PID, name, state and parent of /proc/PID/stat, and the bytes of its address space
// (vsize, the 23rd field).
var tasksStat = regexp.MustCompile(`(?m)^== (\d+) \((.*)\) ([A-Z]) (\d+)(?: -?\d+){18} (\d+) `)

// TestTasksOfRecord compares the tasks of kernels that no crash opens with what /proc said before the panic.
func TestTasksOfRecord(t *testing.T) {
	t.Parallel()
	for _, s := range []lab.Scenario{
		{Kernel: "7.3"},
		{Kernel: "6.12-arm64", CPU: "max"},
		{Kernel: "backports-arm64-16k", CPU: "cortex-a76"},
		{Kernel: "6.1-arm64"}, // without symbols of data
	} {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			c, err := lab.CaptureELF(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			record, err := os.ReadFile(c.Tasks)
			if err != nil {
				t.Fatal(err)
			}
			d := openDump(t, c)
			list, err := d.Tasks.List()
			if err != nil {
				t.Fatal(err)
			}
			tasksSameAsRecord(t, d, list, string(record))
		})
	}
}

// tasksLetters has the states of /proc/PID/stat (task_state_array in fs/proc/array.c) by their names in crash.
var tasksLetters = map[string]string{
	"RU": "R", "IN": "S", "UN": "D", "ID": "I", "ST": "T", "TR": "t", "PA": "P", "ZO": "Z", "DE": "X", "NE": "R", "WA": "R",
}

// tasksInitMore is how much the address space of the guest's init may grow behind its record, in bytes; 256 KiB were seen.
const tasksInitMore = 16 << 20

// tasksSameAsRecord compares processes that were there when the record was made and were not running then or at the panic.
func tasksSameAsRecord(t *testing.T, d *lab.Dump, list []tasks.Task, record string) {
	t.Helper()
	byPID := map[int]tasks.Task{}
	for _, task := range list {
		byPID[task.PID] = task
	}
	same := 0
	for _, m := range tasksStat.FindAllStringSubmatch(record, -1) {
		pid, _ := strconv.Atoi(m[1])
		task := byPID[pid]
		if strings.HasPrefix(m[2], "kworker/") { // their names tell what they did last, and they come and go
			continue
		}
		const commLen = 15 // /proc knows longer names of kernel threads
		if got := fmt.Sprintf("%s %d", task.Comm, task.PPID); got != m[2][:min(len(m[2]), commLen)]+" "+m[4] {
			t.Errorf("task %d: got %s, want %s %s", pid, got, m[2], m[4])
		}
		space, _ := strconv.ParseUint(m[5], 10, 64)
		more := uint64(0)
		if pid == 1 { // it makes the record and goes on: its runtime may map more memory before the panic
			more = tasksInitMore
		}
		if task.MemoryError != nil || task.VSZ < space || task.VSZ > space+more || (space > 0) != (task.RSS > 0) || task.RSS > task.VSZ {
			t.Errorf("task %d: %d bytes, %d in memory, %v, want %d", pid, task.VSZ, task.RSS, task.MemoryError, space)
		}
		if m[3] != tasksLetters[task.State.String()] || task.State == 0 || task.Active {
			continue // it did something in the meantime, or ran at the panic
		}
		same++
		tasksSavedPlausible(t, d, task)
	}
	if same < 20 {
		t.Errorf("only %d tasks of the record were as they had been", same)
	}
	// Another thread of it may be about to sleep on the other CPU.
	if !slices.ContainsFunc(list, func(task tasks.Task) bool {
		return task.Active && !task.Idle && task.Comm == "init" && task.State.String() == "RU"
	}) {
		t.Errorf("the guest's init brought the panic about, and does not run: %+v", list)
	}
}

// tasksSavedPlausible checks that a sleeping task goes on where the scheduler left it, on its own stack.
func tasksSavedPlausible(t *testing.T, d *lab.Dump, task tasks.Task) {
	t.Helper()
	saved, err := d.Tasks.Saved(task)
	if err != nil {
		t.Errorf("task %d: %v", task.PID, err)
		return
	}
	const stackSize = 16 << 10 // THREAD_SIZE of all kernels of the lab
	symbol, _ := d.Symbols.Find(saved.IP)
	if symbol.Name != map[elf.Machine]string{elf.EM_X86_64: "__schedule", elf.EM_AARCH64: "__switch_to"}[d.Kernel.Machine()] ||
		saved.SP < task.Stack || saved.SP > task.Stack+stackSize {
		t.Errorf("task %d: in %q with %+v, its stack is at %v", task.PID, symbol.Name, saved, task.Stack)
	}
}
