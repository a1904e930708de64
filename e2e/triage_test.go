package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/triage"
)

// triageMachine is a crashed machine with what crash says of it.
type triageMachine struct {
	captured *lab.Captured
	crash    map[string]string // by command
}

func triageMachineOf(t *testing.T, s lab.Scenario) triageMachine {
	t.Helper()
	c := tasksCapture(t, s)
	said, err := c.Crash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return triageMachine{c, said}
}

// triageKernels are those that crash 8.0.6 opens.
var triageKernels = []string{"5.10", "6.1", "6.12"}

// TestTriageLikeCrash compares sys, ps, mods and bt with those commands of crash, which has debug symbols.
func TestTriageLikeCrash(t *testing.T) {
	t.Parallel()
	for _, name := range triageKernels {
		t.Run(name, func(t *testing.T) {
			m := triageMachineOf(t, lab.Scenario{Kernel: name})
			m.compareSys(t)
			m.comparePs(t)
			m.compareMods(t)
			m.compareBt(t)
		})
	}
}

// triageRows reads the rows "KEY: value" of sys.
func triageRows(text string) map[string]string {
	rows := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			rows[key] = value
		}
	}
	return rows
}

// compareSys wants every row that crash prints, except for the names of its files.
func (m triageMachine) compareSys(t *testing.T) {
	t.Helper()
	out, _ := judgesRun(t, 0, "corehaul", "sys", m.captured.ELF)
	got, want := triageRows(out), triageRows(m.crash["sys"])
	// crash 8.0.6 takes the 250 Hz of Debian's 6.12 for 1000. The clock of the log runs some 100 ms longer than jiffies.
	if last, before := m.uptime(t); !slices.Contains([]string{want["UPTIME"], last, before}, got["UPTIME"]) {
		t.Errorf("sys: UPTIME is %q, crash says %q, the log ends at %s", got["UPTIME"], want["UPTIME"], last)
	}
	want["MEMORY"] = strings.Replace(want["MEMORY"], "B", "iB", 1) // crash calls 2^30 bytes a GB
	delete(want, "UPTIME")
	delete(want, "KERNEL")
	delete(want, "DUMPFILE")
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			t.Errorf("sys: %s is %q, crash says %q", key, got[key], want[key])
		}
	}
	if len(want) < 10 {
		t.Errorf("crash says only %v", want)
	}
}

// uptime is the time stamp of the last line of the log, as sys prints it, and the second before.
func (m triageMachine) uptime(t *testing.T) (last, before string) {
	t.Helper()
	log, _ := judgesRun(t, 0, "corehaul", "log", m.captured.ELF)
	stamps := triageStamp.FindAllStringSubmatch(log, -1)
	sec, err := strconv.Atoi(stamps[len(stamps)-1][1])
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("00:%02d:%02d", sec/60, sec%60), fmt.Sprintf("00:%02d:%02d", (sec-1)/60, (sec-1)%60)
}

// triageStamp is a time stamp, in seconds.
var triageStamp = regexp.MustCompile(`(?m)^\[ *(\d+)\.`)

func (m triageMachine) comparePs(t *testing.T) {
	t.Helper()
	got, _ := judgesRun(t, 0, "corehaul", "ps", m.captured.ELF)
	if want := m.crash["ps"]; strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("ps: got\n%s\ncrash says\n%s", got, want)
	}
}

// compareMods compares the columns that crash has: the struct module, the name, the start of the code, the size.
func (m triageMachine) compareMods(t *testing.T) {
	t.Helper()
	columns := func(text string) (rows []string) {
		for line := range strings.Lines(text) {
			if words := strings.Fields(line); len(words) >= 4 && words[0] != "MODULE" {
				rows = append(rows, strings.Join(words[:4], " "))
			}
		}
		return rows
	}
	out, _ := judgesRun(t, 0, "corehaul", "mods", m.captured.ELF)
	if got, want := columns(out), columns(m.crash["mod"]); len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("mods: got\n%s\ncrash says\n%s", out, m.crash["mod"])
	}
}

// triageFrame is a numbered line of bt: where the address lay on the stack, the function, the address.
var triageFrame = regexp.MustCompile(`(?m)^ *#\d+ \[([0-9a-f]+)\] (\S+) at ([0-9a-f]+)`)

// compareBt wants all proved frames of all CPUs among those of crash, and no gap between them.
func (m triageMachine) compareBt(t *testing.T) {
	t.Helper()
	ours, _ := judgesRun(t, 0, "corehaul", "bt", "--all", m.captured.ELF)
	got, want := triageStacks(ours), triageStacks(m.crash["bt -a"])
	if len(got) != len(want) || len(got) == 0 {
		t.Fatalf("bt: %d tasks, crash says %d:\n%s", len(got), len(want), ours)
	}
	for task, frames := range got {
		// The registers in the note of the CPU that crashed were saved before the call of machine_kexec, with which crash begins.
		// Of vpanic and panic, crash 8.0.6 shows the first only.
		rest := slices.DeleteFunc(frames[1:], func(f string) bool { return strings.Contains(f, " panic ") && !slices.Contains(want[task], f) })
		at := slices.Index(want[task], rest[0])
		if at < 0 || !slices.Equal(rest, want[task][at:]) {
			t.Errorf("bt of task %s: got\n%s\ncrash says\n%s", task, strings.Join(frames, "\n"), strings.Join(want[task], "\n"))
		}
	}
}

// triageStacks reads the frames of each task of the output of bt.
func triageStacks(text string) map[string][]string {
	stacks := map[string][]string{}
	for part := range strings.SplitSeq(text, "PID: ") {
		_, rest, ok := strings.Cut(part, "TASK: ")
		if !ok {
			continue
		}
		task, _, _ := strings.Cut(rest, " ")
		for _, f := range triageFrame.FindAllStringSubmatch(rest, -1) {
			stacks[task] = append(stacks[task], f[1]+" "+f[2]+" "+f[3])
		}
	}
	return stacks
}

// TestTriageLikeTheLog compares the frames in memory with the call trace that the kernel itself printed, on the kernels that the released
// versions of crash do not open, and on arm64.
func TestTriageLikeTheLog(t *testing.T) {
	t.Parallel()
	for _, s := range []lab.Scenario{{Kernel: "6.1-arm64"}, {Kernel: "6.12-arm64", CPU: "max"}, {Kernel: "6.12", CPU: "max"}} {
		t.Run(s.Name(), func(t *testing.T) {
			c, err := lab.CaptureELF(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			out, _ := judgesRun(t, 0, "corehaul", "report", "--json", c.ELF)
			var r triage.Report
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatal(err)
			}
			triageAgrees(t, &r)
		})
	}
}

// triageAgrees wants the reliable frames of the kernel's call trace in the backtrace of the task that crashed, without a gap: function and offset.
// The trace begins in functions that print it and have returned.
func triageAgrees(t *testing.T, r *triage.Report) {
	t.Helper()
	if r.Log == nil || len(r.Log.Traces) == 0 || len(r.Backtraces) == 0 {
		t.Fatalf("no trace, or no backtrace: %+v", r)
	}
	got := slices.DeleteFunc(slices.Clone(r.Backtraces[0].Frames), func(f triage.Frame) bool { return f.User })
	want := slices.DeleteFunc(slices.Clone(r.Log.Traces[0].Frames), func(f oops.Frame) bool { return f.Unreliable || f.Function == "" })
	want = want[max(0, len(want)-len(got)):]
	got = got[len(got)-len(want):]
	panicked := false
	for i := len(want) - 1; i >= 0 && !panicked; i-- {
		g, w := got[i], want[i].Location
		panicked = g.Function == "panic" // it has called others since it printed the trace
		// arm64 names the symbol of a return address, which may be that of the next function.
		next := w.Offset == 0 && g.Offset == g.Size
		if !next && (g.Function != w.Function || !panicked && g.Offset != w.Offset || g.Module != w.Module) {
			t.Errorf("frame %d from the end is %s+%#x, the kernel says %s+%#x", len(want)-i, g.Function, g.Offset, w.Function, w.Offset)
		}
	}
	if len(want) < 8 {
		t.Errorf("only %d frames to compare", len(want))
	}
}
