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
	r := Overview(m, log)
	r.Backtraces, _ = m.Backtraces(Which{CPUs: true, CPU: -1}) // an error is for a choice of one
	r.takeCrashed(m)
	r.Blocked = m.Blocked()
	r.Modules = m.Modules()
	r.Crash.Livepatch = r.Livepatch(r.Crash.Module)
	m.part("the signature", func() error {
		r.signMemory(m)
		return nil
	})
	r.Unread = append(r.Unread, m.unread...)
	return r
}

// Overview makes a report without stacks and modules. Its Unread has only what m.Unread lacks.
func Overview(m *Memory, log io.Reader) *Report {
	r := &Report{Version: Version, Sources: []string{}, Kind: oops.Unknown}
	said, read := m.logOf(log)
	if read {
		r.Sources = append(r.Sources, SourceLog)
	}
	switch {
	case said != nil:
		r.takeLog(said)
	case read:
		r.Unread = append(r.Unread, oops.ErrNoCrash.Error())
	}
	if m.k != nil && m.k.Supported() {
		r.Sources = append(r.Sources, SourceMemory)
	}
	r.takeSystem(m.System())
	return r
}

// logOf reads what the kernel said about the crash, nil if nothing: from text, or, if that shows no crash, from memory. read
// says that there was a log.
func (m *Memory) logOf(text io.Reader) (said *oops.Report, read bool) {
	if text != nil {
		m.part("the text of the log", func() (err error) {
			if said, err = oops.Read(text); errors.Is(err, oops.ErrNoCrash) {
				err = nil
			}
			read = err == nil
			return err
		})
	}
	if said != nil {
		m.said = func() (*oops.Report, bool) { return said, true }
		return said, true
	}
	said, inMemory := m.said()
	return said, read || inMemory
}

// readLog reads the log in memory as logOf does. Damage may be in one place of it only: what can be read counts.
func (m *Memory) readLog() (said *oops.Report, read bool) {
	m.part("the log", func() error {
		if m.k == nil {
			return errors.New("the kernel's memory cannot be read")
		}
		var s oops.Scanner
		err := printk.Dump(m.k, &s)
		report, noCrash := s.Report()
		said, read = report, err == nil || noCrash == nil
		return err
	})
	return said, read
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

// takeCrashed takes what memory says of the task that crashed. It is the one that the log names, which is another than the one that
// panicked if that found a task that hangs, or a CPU that stalls. Without a log, it is the one that panicked, where its CPU was.
func (r *Report) takeCrashed(m *Memory) {
	if len(r.Backtraces) == 0 || r.Backtraces[0].CPU != m.CrashedCPU() {
		return
	}
	b, said := &r.Backtraces[0], r.Log
	if said != nil && (said.PID != nil && *said.PID != b.PID || said.CPU != nil && *said.CPU != b.CPU) {
		r.Crash.Task = m.taskOf(said)
		return
	}
	r.Crash.CPU, r.Crash.PID = &b.CPU, &b.PID
	if b.Task != "" {
		r.Crash.Comm, r.Crash.Task = b.Comm, b.Task
	}
	if said == nil && len(b.Frames) > 0 {
		r.Crash.Function, r.Crash.Offset, r.Crash.Module = b.Frames[0].Function, b.Frames[0].Offset, b.Frames[0].Module
	}
}

// taskOf returns the address of the task that the log names, "" if it names none, or if another has its PID by now. All idle tasks
// have the PID 0.
func (m *Memory) taskOf(said *oops.Report) string {
	if said.PID == nil {
		return ""
	}
	for _, t := range m.list() {
		if t.PID == *said.PID && t.Comm == said.Comm && (t.PID != 0 || said.CPU != nil && t.CPU == *said.CPU) {
			return hexAddr(t.Addr)
		}
	}
	return ""
}
