package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/triage"
)

// whatCrashed returns the stored report of a dump if it is of this seal and in a form that this program knows. Otherwise it makes one of the
// log. It is nil if there is nothing to report.
func (a *app) whatCrashed(ctx context.Context, t *target) *triage.Report {
	r, err := t.storedReport(ctx)
	if err != nil {
		a.stdio.Warn("corehaul", "%s: cannot read the report: %v", t.name(), err)
	}
	if r != nil {
		return r
	}
	if r, err = t.logReport(ctx); err != nil {
		a.stdio.Warn("corehaul", "%s: cannot read the log: %v", t.name(), err)
	}
	return r
}

// storedReport reads the report of the present state of a dump from report.json. It is nil if there is none.
func (t *target) storedReport(ctx context.Context) (*triage.Report, error) {
	if h := t.entry.Report; t.entry.ReportError != nil || h == nil || !h.Describes(&t.entry.Manifest) || h.ReportVersion != triage.Version {
		return nil, t.entry.ReportError
	}
	d, err := t.dump(ctx)
	if err != nil {
		return nil, err
	}
	f, err := d.Report()
	if err = errors.Join(err, d.Close()); err != nil || f == nil || !f.Describes(&t.entry.Manifest) {
		return nil, err
	}
	r := new(triage.Report)
	if err := json.Unmarshal(f.Report, r); err != nil {
		return nil, err
	}
	return r, nil
}

// logReport makes a report of the log of a stored dump. It is nil if the log shows no crash, or if there is no log.
func (t *target) logReport(ctx context.Context) (*triage.Report, error) {
	log, err := t.storedLog(ctx)
	if err != nil || log == nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // only read
	r, err := triage.OfLog(log)
	if errors.Is(err, oops.ErrNoCrash) {
		return nil, nil
	}
	return r, err
}

// crashRows says what crashed and where.
func crashRows(r *triage.Report) facts {
	if r == nil {
		return nil
	}
	return facts{
		{"title", r.Title},
		{"kind", string(r.Kind)},
		{"task", taskText(&r.Crash)},
		{"cpu", optionalInt(r.Crash.CPU)},
		{"function", functionText(r.Crash.Function, r.Crash.Offset, r.Crash.Module, r.Crash.Livepatch)},
		{"taint", taintText(r.System.Taint)},
		{"hardware", r.System.Hardware},
		{"uptime", uptime(r.System.UptimeMsec)},
		{"unread", unread(r)},
	}
}

// unread says why a report has nothing to say. "report" prints all such lines.
func unread(r *triage.Report) string {
	if len(r.Sources) > 0 || len(r.Unread) == 0 {
		return ""
	}
	return r.Unread[0]
}

// readers are the command lines that open a vmcore of a kernel in crash and in drgn. They are empty if a name cannot be quoted.
func readers(vmcore, release string) string {
	image, debug := vmlinuxOf(release)
	file, err := syntax.Quote(vmcore, syntax.LangPOSIX)
	vmlinux, err2 := syntax.Quote(debug, syntax.LangPOSIX)
	if vmcore == "" || release == "" || err != nil || err2 != nil {
		return ""
	}
	namelist := vmlinux
	if image != "" {
		quoted, _ := syntax.Quote(image, syntax.LangPOSIX) // of the same release
		namelist = quoted + " " + vmlinux
	}
	var b strings.Builder
	b.WriteString("\nto read it:\n")
	for _, line := range []string{"corehaul bt " + file, "crash " + namelist + " " + file, "drgn -c " + file + " -s " + vmlinux} {
		b.WriteString("  " + cli.Printable(line) + "\n")
	}
	return b.String()
}

// vmlinuxOf is where the packages of a distribution put vmlinux with debug symbols: kernel-debuginfo of Red Hat and Fedora,
// linux-image-*-dbg of Debian and linux-image-*-dbgsym of Ubuntu, and kernel-default-debuginfo of SUSE, whose file has the debug symbols
// alone. There, image is the file that crash needs beside it.
func vmlinuxOf(release string) (image, debug string) {
	for _, mark := range []string{".el", ".fc", ".amzn"} {
		if strings.Contains(release, mark) {
			return "", "/usr/lib/debug/lib/modules/" + release + "/vmlinux"
		}
	}
	debug = "/usr/lib/debug/boot/vmlinux-" + release
	if strings.HasSuffix(release, "-default") {
		return "/boot/vmlinux-" + release + ".gz", debug + ".debug"
	}
	return "", debug
}

// printCrash prints what "show" prints behind the facts: the call trace, and how to read the dump.
func (a *app) printCrash(r *triage.Report, vmcore, release string) error {
	if r != nil {
		if err := a.printLogTrace(r); err != nil {
			return err
		}
	}
	_, err := io.WriteString(a.stdio.Out, readers(vmcore, release))
	return err
}

// vmcoreOf is where the vmcore of a dump lies, empty if it has none.
func vmcoreOf(e *storage.Entry) string {
	switch {
	case e.Manifest.Plan == nil:
		return ""
	case e.Manifest.State == dumpdir.StateArriving:
		return filepath.Join(e.Path, dumpdir.IncompleteName)
	}
	return filepath.Join(e.Path, dumpdir.VMCoreName)
}
