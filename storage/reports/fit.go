package reports

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/triage"
)

// cuts are what fit leaves out of a report that is too long, the least useful first: how many there are, and how to keep n of them.
var cuts = []struct {
	what string
	has  func(r *triage.Report) int
	keep func(r *triage.Report, n int)
}{
	{"stacks of waiting tasks", func(r *triage.Report) int { return len(r.Blocked) }, func(r *triage.Report, n int) { r.Blocked = first(r, r.Blocked, n) }},
	{"stacks of CPUs", func(r *triage.Report) int { return len(r.Backtraces) }, func(r *triage.Report, n int) { r.Backtraces = first(r, r.Backtraces, max(n, 1)) }},
	{"modules", func(r *triage.Report) int { return len(r.Modules) }, func(r *triage.Report, n int) { r.Modules = r.Modules[:n] }},
	{"frames of the longest stack", longest, func(r *triage.Report, n int) {
		for _, list := range []*[]triage.Backtrace{&r.Backtraces, &r.Blocked} {
			*list = slices.Clone(*list)
			for i := range *list {
				b := &(*list)[i]
				b.Frames = b.Frames[:min(n, len(b.Frames))]
			}
		}
	}},
}

// first returns the first n stacks of a list, and that of the task that crashed.
func first(r *triage.Report, list []triage.Backtrace, n int) []triage.Backtrace {
	crashed := r.Crashed()
	out := slices.Clone(list[:min(n, len(list))])
	for i := n; i < len(list); i++ {
		if &list[i] == crashed {
			out = append(out, list[i])
		}
	}
	return out
}

// longest is the number of frames of the longest stack.
func longest(r *triage.Report) (n int) {
	for _, list := range [][]triage.Backtrace{r.Backtraces, r.Blocked} {
		for i := range list {
			n = max(n, len(list[i].Frames))
		}
	}
	return n
}

// stored returns what is stored of the report r about the dump with manifest m, and its length in bytes. failed says why the dump could not be read. A report that is too long is cut, and says so
// in Unread.
func (r *Runner) stored(m *dumpdir.Manifest, report *triage.Report, failed string) (*dumpdir.StoredReport, int, error) {
	f, n, err := r.encode(m, report, failed)
	if !errors.Is(err, dumpdir.ErrTooLong) {
		return f, n, err
	}
	for _, c := range cuts {
		all := c.has(report)
		if all == 0 {
			continue
		}
		with := func(n int) *triage.Report {
			short := *report
			c.keep(&short, n)
			short.Unread = append(slices.Clone(report.Unread), fmt.Sprintf("the report was too long: it has %d of %d %s", c.has(&short), all, c.what))
			return &short
		}
		if f, n, err = r.encode(m, with(0), failed); errors.Is(err, dumpdir.ErrTooLong) {
			report = with(0)
			continue
		}
		none, size := f, n
		for keep := all / 2; keep > 0; keep /= 2 {
			if f, n, err = r.encode(m, with(keep), failed); !errors.Is(err, dumpdir.ErrTooLong) {
				return f, n, err
			}
		}
		return none, size, nil
	}
	return r.encode(m, &triage.Report{
		Version: report.Version, Sources: report.Sources, Kind: report.Kind, Title: report.Title, Signatures: report.Signatures, System: report.System, Crash: report.Crash,
		Unread: []string{"the report was too long: it has the title and the machine only"},
	}, failed)
}

// encode is stored without a cut. The error matches dumpdir.ErrTooLong.
func (r *Runner) encode(m *dumpdir.Manifest, report *triage.Report, failed string) (*dumpdir.StoredReport, int, error) {
	b, err := json.Marshal(report)
	if err != nil {
		return nil, 0, err
	}
	f := dumpdir.NewStoredReport(m, dumpdir.ReportHead{
		Program: r.Program, ReportVersion: report.Version, Kind: string(report.Kind), Title: report.Title, Failed: failed,
		Signatures: dumpdir.Signatures{Log: (*dumpdir.Signature)(report.Signatures.Log), Memory: (*dumpdir.Signature)(report.Signatures.Memory)},
	}, b, time.Now())
	b, err = dumpdir.EncodeSideFile(f)
	return f, len(b), err
}
