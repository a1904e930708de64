package triage

import (
	"io"

	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/kernel/signature"
)

// OfLog makes a report from the text of a log alone. The error matches oops.ErrNoCrash if the log shows no crash; other
// errors are those of log.
func OfLog(log io.Reader) (*Report, error) {
	said, err := oops.Read(log)
	if err != nil {
		return nil, err
	}
	r := &Report{Version: Version, Sources: []string{SourceLog}}
	r.takeLog(said)
	return r, nil
}

// takeLog takes what the kernel said about the crash.
func (r *Report) takeLog(said *oops.Report) {
	r.Log, r.Kind, r.Title, r.PanicLine = said, said.Kind, said.Title, said.PanicLine
	r.Signatures.Log = signature.OfLog(said)
	r.System.Release, r.System.Version = said.Release, said.Version
	r.System.Hardware, r.System.Taint = said.Hardware, said.Taint
	r.Crash = Crash{CPU: said.CPU, PID: said.PID, Comm: said.Comm}
	if ip := said.IP; ip != nil {
		r.Crash.Function, r.Crash.Offset, r.Crash.Module = ip.Function, ip.Offset, ip.Module
		r.Crash.Livepatch = r.Livepatch(ip.Module)
	}
}
