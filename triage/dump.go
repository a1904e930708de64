package triage

import (
	"errors"
	"io"

	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/kernel/printk"
)

// OfDump makes a report from the memory of a dump and its log. If log is nil, it reads the log from memory. What cannot be
// read is in Report.Unread: it never fails.
func OfDump(m *Memory, log io.Reader) *Report {
	r := &Report{Version: Version, Kind: oops.Unknown}
	said, err := m.log(log)
	switch {
	case err == nil:
		r.Sources = append(r.Sources, SourceLog)
		r.takeLog(said)
	case errors.Is(err, oops.ErrNoCrash):
		r.Sources = append(r.Sources, SourceLog)
		r.Unread = append(r.Unread, err.Error())
	default:
		m.cannot("the log", err)
	}
	if m.k != nil && m.k.Supported() {
		r.Sources = append(r.Sources, SourceMemory)
	}
	r.takeSystem(m.System())
	r.Backtraces, _ = m.Backtraces(Which{CPUs: true, CPU: -1}) // an error is for a choice of one
	r.takeCrashed(m)
	r.Blocked = m.Blocked()
	r.Modules = m.Modules()
	r.Unread = append(r.Unread, m.unread...)
	return r
}

// log reads what the kernel said about the crash, from its text or else from memory.
func (m *Memory) log(text io.Reader) (said *oops.Report, err error) {
	if text != nil {
		return oops.Read(text)
	}
	return m.logReport()
}

// logReport reads the log in memory.
func (m *Memory) logReport() (*oops.Report, error) {
	if m.k == nil {
		return nil, errors.New("the kernel's memory cannot be read")
	}
	var s oops.Scanner
	if err := printk.Dump(m.k, &s); err != nil {
		return nil, err
	}
	return s.Report()
}

// takeSystem takes what memory says of the machine. What only the log says stays.
func (r *Report) takeSystem(s System) {
	s.Hardware, s.Taint = r.System.Hardware, r.System.Taint
	if s.Release == "" {
		s.Release = r.System.Release
	}
	if s.Version == "" {
		s.Version = r.System.Version
	}
	r.System = s
}

// takeCrashed takes what memory says of the task that crashed. The place of the fault is what the log names; without a log it is where
// the CPU was.
func (r *Report) takeCrashed(m *Memory) {
	if len(r.Backtraces) == 0 || r.Backtraces[0].CPU != m.CrashedCPU() {
		return
	}
	b := &r.Backtraces[0]
	if b.Task != "" {
		r.Crash.CPU, r.Crash.PID, r.Crash.Comm, r.Crash.Task = &b.CPU, &b.PID, b.Comm, b.Task
	}
	if r.Log == nil && len(b.Frames) > 0 {
		r.Crash.Function, r.Crash.Offset, r.Crash.Module = b.Frames[0].Function, b.Frames[0].Offset, b.Frames[0].Module
	}
}
