// Package oops reads the kernel's own crash reports out of the text of a log: what kind of crash it was, a title in the form
// of syzbot, the CPU, task and registers, and the call traces.
//
// It takes the output of consoles, netconsole, pstore, dmesg, journalctl and log daemons, with or without time stamps and
// caller ids (see package headline). Lines may be cut or missing, and reports of several CPUs mixed. If the lines name
// their callers, only those of the report's caller count. It reads all machines' headlines and program counters, and all
// of the registers and frames of x86 and arm64. It reads no line wrapped by a terminal, and no pieces of pstore in reverse order.
//
// Titles are those of syzbot, so that its reports can be found by them, except where they would mislead:
//
//   - A place that the log does not name is left out, where syzbot writes "corrupted".
//   - If the log names no other place than a helper, the title names the helper.
//   - A function is no helper because of words such as "pointer" or "invalid_op" in the middle of its name.
//   - A fault that follows a warning or a lockup within seconds names the crash: it stops more than they do.
//   - Leaks that kmemleak lists without a headline are no crash.
//
// The text is hostile input. Time is linear in its length, and memory bounded (see Scanner). A program of the crashed
// machine can write the same text to /dev/kmsg; it is taken for the kernel's, unless its level says otherwise.
//
// Functions are safe for concurrent use. A Scanner belongs to one goroutine.
package oops

import (
	"errors"
	"io"
)

// Report is what the log says about the crash. The JSON names are stable: names are added and never change. Addresses and
// values of registers are strings of hexadecimal digits without 0x, as the kernel printed them.
type Report struct {
	Kind Kind `json:"kind"`
	// Detail names the kind more closely: the bug that KASAN, KFENCE, KMSAN or UBSAN names ("slab-use-after-free"), or the
	// message of a panic.
	Detail string `json:"detail,omitempty"`
	// Title names the crash, without what differs between two equal crashes: "KASAN: slab-use-after-free Read in foo".
	Title     string `json:"title"`
	Headline  string `json:"headline"`             // the first line of the report, without time stamp
	PanicLine string `json:"panic_line,omitempty"` // the panic message, "" if the log ends before it
	// Function is the function that Title names, without suffixes of the compiler. It is "" if the log names none that
	// can be blamed. Module is where it lies, "" for the kernel image.
	Function string `json:"function,omitempty"`
	Module   string `json:"module,omitempty"`

	CPU       *int   `json:"cpu,omitempty"`
	PID       *int   `json:"pid,omitempty"`
	Comm      string `json:"comm,omitempty"`
	Workqueue string `json:"workqueue,omitempty"` // "events foo_work", if a worker crashed
	Taint     *Taint `json:"taint,omitempty"`     // nil if the log does not say
	Release   string `json:"release,omitempty"`   // uname -r
	Version   string `json:"version,omitempty"`   // uname -v, or what the report has of it
	Hardware  string `json:"hardware,omitempty"`

	IP           *Location `json:"ip,omitempty"` // where the fault was: RIP, pc, NIP, epc, PSW
	LR           *Location `json:"lr,omitempty"` // lr, ra, LR
	ErrorCode    string    `json:"error_code,omitempty"`
	FaultAddress string    `json:"fault_address,omitempty"`
	Access       string    `json:"access,omitempty"` // "read", "write" or "execute"
	Registers    Registers `json:"registers,omitempty"`
	Code         string    `json:"code,omitempty"` // bytes around IP, IP's own in <> or ()

	Modules []Module `json:"modules,omitempty"`
	Traces  []Trace  `json:"traces,omitempty"` // the blamed one, then the others in the order of the log
	// Truncated says that the report was longer than a Scanner keeps.
	Truncated bool `json:"truncated,omitempty"`
}

// Location is a place in the kernel's code. Text that names no symbol leaves only Address. In JSON, a number that is
// missing is 0.
type Location struct {
	Address  string `json:"address,omitempty"`
	Function string `json:"function,omitempty"` // as printed, with suffixes such as .isra.0
	Offset   uint64 `json:"offset,omitempty"`   // in bytes
	Size     uint64 `json:"size,omitempty"`     // of the function, in bytes
	Module   string `json:"module,omitempty"`
	BuildID  string `json:"build_id,omitempty"`
}

// Register is a register as the kernel printed it.
type Register struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Registers are in the order of the log.
type Registers []Register

// Trace is one call trace.
type Trace struct {
	// Name is the line before the trace, without its colon: "Call Trace", "Allocated by task 12"; "" where there is none.
	Name string `json:"name"`
	CPU  *int   `json:"cpu,omitempty"` // if the log says so right before the trace
	PID  *int   `json:"pid,omitempty"`
	Comm string `json:"comm,omitempty"`
	// IP is where the CPU was, if the trace belongs to another CPU than the report's and the log says it.
	IP     *Location `json:"ip,omitempty"`
	Frames []Frame   `json:"frames"`
}

// Frame is a line of a call trace.
type Frame struct {
	Location
	// Unreliable frames are what the kernel found on the stack but could not prove: "? foo+0x1/0x2".
	Unreliable bool `json:"unreliable,omitempty"`
	// Context is the stack: "TASK", "IRQ", "SOFTIRQ", "NMI", "#DF"...; "" where the kernel does not mark it.
	Context string `json:"context,omitempty"`
	// Marks are letters that arm64 prints behind a frame (arch/arm64/kernel/stacktrace.c, 6.13): P the program counter of
	// an exception, U unknown, C caller, T task, F function graph, K kretprobe.
	Marks string `json:"marks,omitempty"`
	// Exception has the registers that the trace prints behind this frame, where an exception interrupted the function
	// whose location is Exception.IP.
	Exception *Exception `json:"exception,omitempty"`
}

// Exception is an exception frame in a call trace.
type Exception struct {
	IP        *Location `json:"ip,omitempty"`
	User      bool      `json:"user,omitempty"` // the exception came from user space
	Registers Registers `json:"registers,omitempty"`
}

// Module is a name of the line "Modules linked in:".
type Module struct {
	Name   string `json:"name"`
	Taints string `json:"taints,omitempty"` // letters, such as "OE"
	// State is "loading" or "unloading" for modules marked + or -, "unloaded" for the one unloaded last.
	State string `json:"state,omitempty"`
}

// ErrNoCrash says that a log shows no crash.
var ErrNoCrash = errors.New("the log shows no crash")

// Read reads a log and returns its report. It returns ErrNoCrash if the log shows no crash, and otherwise the errors of r.
func Read(r io.Reader) (*Report, error) {
	var s Scanner
	if _, err := io.Copy(&s, r); err != nil {
		return nil, err
	}
	return s.Report()
}
