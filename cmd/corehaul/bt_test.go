package main

import (
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/triage"
)

// TestBacktraceForm prints a stack with each kind of frame.
func TestBacktraceForm(t *testing.T) {
	regs := func(ip, sp string) []triage.Register {
		return []triage.Register{{Name: "ip", Value: ip}, {Name: "sp", Value: sp}, {Name: "flags", Value: "0000000000010246"}, {Name: "cs", Value: "0000000000000010"}}
	}
	trace := triage.Backtrace{PID: 42, CPU: 1, Comm: "evil\x1b[0m", Task: "ffff8c5b82603000", End: "the stack cannot be read", Frames: []triage.Frame{
		{Address: "ffffffff8796475a", Function: "__crash_kexec", Found: unwind.FromRegisters, Registers: regs("ffffffff8796475a", "ffffcc8440413a40")},
		{Address: "ffffffff881cd06e", Stack: "ffffcc8440413af8", Function: "panic", Found: unwind.FromORC},
		{Address: "ffffffffc0000010", Stack: "ffffcc8440413b00", Function: "crash", Offset: 16, Module: "mod", Found: unwind.FromORC, Registers: regs("ffffffffc0000010", "ffffcc8440413b08")},
		{Address: "ffffffffc0000020", Stack: "ffffcc8440413b10", Function: "caller", Module: "mod", Found: unwind.FromGuess},
		{Address: "ffffffffc0001000", Stack: "ffffcc8440413b18", Found: unwind.FromFramePointer},
		{Address: "000000000040a7ee", User: true, Found: unwind.FromORC, Registers: regs("000000000040a7ee", "00000f5ac71beb58")},
	}}
	const want = `PID: 42       TASK: ffff8c5b82603000  CPU: 1    COMMAND: "evil\x1b[0m"
 #0 [ffffcc8440413a40] __crash_kexec at ffffffff8796475a
    RIP: ffffffff8796475a  RSP: ffffcc8440413a40  RFLAGS: 00010246
    CS: 0010
 #1 [ffffcc8440413af8] panic at ffffffff881cd06e
    [exception RIP: crash+16]
    RIP: ffffffffc0000010  RSP: ffffcc8440413b08  RFLAGS: 00010246
    CS: 0010
 #2 [ffffcc8440413b10] ? caller [mod] at ffffffffc0000020
 #3 [ffffcc8440413b18] ? (unknown) at ffffffffc0001000
    RIP: 000000000040a7ee  RSP: 00000f5ac71beb58  RFLAGS: 00010246
    CS: 0010
    (the walk ended: the stack cannot be read)
`
	var b strings.Builder
	writeBacktrace(&b, &trace)
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// TestSystemForm formats numbers as crash does.
func TestSystemForm(t *testing.T) {
	for n, want := range map[uint64]string{0: "", 512 << 20: "512 MiB", 1<<30 - 512<<10: "1 GiB", 3 << 29: "1.5 GiB", 64 << 30: "64 GiB", 12 << 40: "12288 GiB", 511<<20 + 512<<10: "511.5 MiB"} {
		if got := memorySize(n); got != want {
			t.Errorf("memorySize(%d) is %q, want %q", n, got, want)
		}
	}
	for msec, want := range map[uint64]string{0: "", 8999: "00:00:08", 90061000: "1 days, 01:01:01"} {
		if got := uptime(msec); got != want {
			t.Errorf("uptime(%d) is %q, want %q", msec, got, want)
		}
	}
}

// TestReaders quotes what a hostile kernel calls itself.
func TestReaders(t *testing.T) {
	got := readers("/var/lib/core haul/vmcore", "5.14.0-1.el9; rm -rf /")
	for _, want := range []string{"corehaul bt '/var/lib/core haul/vmcore'\n", "crash '/usr/lib/debug/lib/modules/5.14.0-1.el9; rm -rf //vmlinux' '/var"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	const suse = "5.14.21-150400.24.18-default"
	want := "crash /boot/vmlinux-" + suse + ".gz /usr/lib/debug/boot/vmlinux-" + suse + ".debug /v\n"
	if got := readers("/v", suse); !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
	if got := readers("/v", "6.1\n"); strings.Count(got, "\n") > 5 {
		t.Errorf("a line end in a release: %q", got)
	}
}

// TestTaintText names the letters of a taint, also those that are not known.
func TestTaintText(t *testing.T) {
	taint := &oops.Taint{Flags: []oops.TaintFlag{{Letter: "O", Text: "out-of-tree module was loaded"}, {Letter: "t"}}}
	if got, want := taintText(taint), "Ot: out-of-tree module was loaded, t is not known"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := taintText(&oops.Taint{}) + taintText(nil); got != "not tainted" {
		t.Errorf("got %q", got)
	}
}
