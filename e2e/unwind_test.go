package e2e

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/kernel/unwind"
)

// TestUnwind holds the stacks of the CPUs of a dump to the call trace in its log. That of the CPU that panicked is equal
// from the handler of sysrq on. All others lead to the end of their stacks.
func TestUnwind(t *testing.T) {
	t.Parallel()
	for _, s := range []lab.Scenario{
		{Kernel: "5.10"},
		{Kernel: "6.1"},
		{Kernel: "6.1", CPU: "max"},
		{Kernel: "6.1-arm64"},
		{Kernel: "6.12"},
		{Kernel: "6.12", CPU: "max"},
		{Kernel: "6.12-arm64"},
		{Kernel: "6.12-arm64", CPU: "max"}, // signed return addresses
		{Kernel: "backports-arm64-16k", CPU: "cortex-a76"},
	} {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			captured, err := lab.CaptureELF(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			unwindCompare(t, openDump(t, captured))
		})
	}
}

func unwindCompare(t *testing.T, d *lab.Dump) {
	t.Helper()
	u, err := unwind.New(d.Kernel, d.Symbols, unwind.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if err := printk.Dump(d.Kernel, &log); err != nil {
		t.Fatal(err)
	}
	want := unwindFromCrash(unwindPrinted(log.Bytes()))
	panicked := 0
	for i, cpu := range d.Image.Info().CPUs {
		registers, err := unwind.ParseRegisters(d.Kernel.Machine(), cpu.Regs)
		if err != nil {
			t.Fatal(err)
		}
		trace := u.Unwind(0, registers)
		if !trace.Complete {
			t.Errorf("CPU %d: %s", i, trace.End)
		}
		got := unwindFromCrash(unwindNames(d.Symbols, trace))
		if len(got) == 0 {
			continue
		}
		panicked++
		if !slices.Equal(got, want) {
			t.Errorf("CPU %d: got %q, want %q", i, got, want)
		}
	}
	if panicked != 1 || len(want) < 6 {
		t.Errorf("%d CPUs panicked, the log has %q", panicked, want)
	}
}

// unwindNames are the frames of the kernel as the kernel prints them.
func unwindNames(symbols *kallsyms.Table, trace unwind.Trace) []string {
	var list []string
	for _, f := range trace.Frames {
		if f.Regs != nil && f.Regs.User() {
			continue
		}
		a := f.IP
		if f.Return {
			a--
		}
		s, _ := symbols.Find(a)
		list = append(list, fmt.Sprintf("%s+%#x/%#x", s.Name, uint64(f.IP-s.Addr), s.Size))
	}
	return list
}

// unwindLine is a line of a call trace. Lines with a question mark are of what else is on the stack.
var unwindLine = regexp.MustCompile(`(?m)^\[ *[\d.]+\]  ?([\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+)(?: \([A-Z]+\))?$`)

// unwindPrinted are the reliable lines of the last call trace in a log.
func unwindPrinted(log []byte) []string {
	at := bytes.LastIndex(bytes.ToLower(log), []byte("] call trace:"))
	var list []string
	for _, m := range unwindLine.FindAllSubmatch(log[max(at, 0):], -1) {
		list = append(list, string(m[1]))
	}
	return list
}

// unwindFromCrash cuts what comes after __handle_sysrq: panic printed the trace at another place than it saved the registers at, and
// arm64 before 6.12 names its caller wrongly, because a call that never returns is the last instruction of a function.
func unwindFromCrash(list []string) []string {
	at := slices.IndexFunc(list, func(line string) bool { return strings.HasPrefix(line, "__handle_sysrq") })
	if at < 0 {
		return nil
	}
	return list[at:]
}
