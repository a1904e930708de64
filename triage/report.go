package triage

import (
	"slices"
	"strings"
	"time"

	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/kernel/signature"
)

// Version is the version of the form of a Report. Names are added and never change their meaning; a change of meaning
// raises it, and so does whatever stored reports should be made again for, such as another signature.Version. 2 added Signatures.
const Version = 2

// Sources of a report, as in Report.Sources.
const (
	SourceLog    = "log"
	SourceMemory = "memory"
)

// Report is what is known about one crash. "corehaul report --json" prints it. Fields that are not known are left out.
type Report struct {
	Version int `json:"report_version"`
	// Sources has what the report was made from: "log", "memory", both, or neither.
	Sources []string `json:"sources"`
	// Kind is "unknown" if the log shows no crash.
	Kind  oops.Kind `json:"kind"`
	Title string    `json:"title"` // empty if the log shows no crash
	// Signatures name the crash, so that it is known again.
	Signatures Signatures `json:"signatures,omitzero"`
	PanicLine  string     `json:"panic_line,omitempty"`
	System     System     `json:"system"`
	Crash      Crash      `json:"crash"`
	// Backtraces are the stacks of the tasks that the CPUs were running, that of the CPU that panicked first, if it is known.
	Backtraces []Backtrace `json:"backtraces,omitempty"`
	// Blocked are the stacks of up to 64 tasks that waited and could not be interrupted, by PID. Unread says if there were more.
	Blocked []Backtrace `json:"blocked,omitempty"`
	Modules []Module    `json:"modules,omitempty"` // by address
	// Log is what the kernel itself said about the crash. It is null if the log shows no crash or cannot be read.
	Log *oops.Report `json:"log,omitempty"`
	// Unread says what could not be read, and why, in one line each.
	Unread []string `json:"unread,omitempty"`
}

// Signatures are made of the log alone and of memory alone. They are equal where both say the same.
type Signatures struct {
	Log *signature.Signature `json:"log,omitempty"` // nil if the log shows no crash of a known kind
	// Memory is nil if memory does not say what crashed, or says something else than the log.
	Memory *signature.Signature `json:"memory,omitempty"`
}

// System is the crashed machine and its kernel.
type System struct {
	Release     string      `json:"release,omitempty"`      // uname -r
	Version     string      `json:"version,omitempty"`      // uname -v
	Nodename    string      `json:"nodename,omitempty"`     // uname -n
	Machine     string      `json:"machine,omitempty"`      // uname -m
	BuildID     string      `json:"build_id,omitempty"`     // of vmlinux, hexadecimal
	Hardware    string      `json:"hardware,omitempty"`     // the log's line "Hardware name"
	CPUs        int         `json:"cpus,omitempty"`         // that were online
	CPUkHz      uint64      `json:"cpu_khz,omitempty"`      // frequency of the CPUs, x86_64 only
	MemoryBytes uint64      `json:"memory_bytes,omitempty"` // of the whole machine, with what is reserved for the capture kernel
	Tasks       int         `json:"tasks,omitempty"`        // threads of the kernel and of all processes
	CrashTime   time.Time   `json:"crash_time,omitzero"`    // by the clock of the crashed machine, to the second
	UptimeMsec  uint64      `json:"uptime_msec,omitempty"`  // milliseconds from boot to the crash
	Load        []float64   `json:"load,omitempty"`         // load average of 1, 5 and 15 minutes
	Taint       *oops.Taint `json:"taint,omitempty"`
}

// Crashed returns the stack of the task that crashed, nil if memory does not have it.
func (r *Report) Crashed() *Backtrace {
	c := &r.Crash
	for _, list := range [][]Backtrace{r.Backtraces, r.Blocked} {
		for i := range list {
			if b := &list[i]; c.Task != "" && b.Task == c.Task || b.Task == "" && b.Active && c.CPU != nil && *c.CPU == b.CPU && c.PID != nil && *c.PID == b.PID {
				return b
			}
		}
	}
	return nil
}

// Crash is the place of the crash. What the log names comes first: if one CPU panics because of another, it is that one.
type Crash struct {
	CPU      *int   `json:"cpu,omitempty"`
	PID      *int   `json:"pid,omitempty"`
	Comm     string `json:"comm,omitempty"`
	Task     string `json:"task,omitempty"`     // address of the task_struct, hexadecimal
	Function string `json:"function,omitempty"` // where the CPU was, with its suffixes
	Offset   uint64 `json:"offset"`             // in Function, in bytes
	Module   string `json:"module,omitempty"`   // of Function; empty for the kernel image
	// Livepatch is as in Frame.
	Livepatch bool `json:"livepatch,omitempty"`
}

// Livepatch reports whether a module is a live patch, as memory or the log has it.
func (r *Report) Livepatch(module string) bool {
	const taint = "K" // TAINT_LIVEPATCH
	for _, m := range r.Modules {
		if m.Name == module {
			return strings.Contains(m.Taints, taint)
		}
	}
	return r.Log != nil && slices.ContainsFunc(r.Log.Modules, func(m oops.Module) bool {
		return m.Name == module && strings.Contains(m.Taints, taint)
	})
}
