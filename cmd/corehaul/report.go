package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/kernel/signature"
	"github.com/corehaul/corehaul/triage"
	"github.com/corehaul/corehaul/vmcore"
)

func newReport(a *app) *cobra.Command {
	var symbols symbolFlags
	cmd := &cobra.Command{
		Use: "report ID|VMCORE|LOGFILE", GroupID: groupTriage, Args: cobra.ExactArgs(1), ValidArgsFunction: cli.Complete(a.completeDump),
		Short: "Say what crashed and where",
		Long: `Say what crashed and where, from the log and the memory of a dump, without debug symbols.
LOGFILE is the text of a kernel log: that of a serial console, netconsole, pstore or dmesg. Of
several crashes in it, the first that led to a panic counts, or, without a panic, the last.
If the log in the memory of VMCORE shows no crash, that of vmcore-dmesg.txt beside it counts.
"-" reads it from standard input. "unread" lines say what could not be read, and why. Task
and function are those that the log blames: the task that hangs, not the one that noticed it.
With --symbols auto, the call trace of the memory has the lines of the source, as 'bt' has.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "-" {
				return a.reportStdin(&symbols)
			}
			return a.withTarget(cmd.Context(), args[0], func(t *target) error { return a.report(cmd.Context(), t, &symbols) })
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	symbols.add(cmd, symbolsOff)
	return cmd
}

func (a *app) report(ctx context.Context, t *target, s *symbolFlags) error {
	r, err := a.reportOf(ctx, t, s)
	if r == nil {
		return err
	}
	if t.isDump() && !t.isVMCore() {
		err = errors.Join(err, t.checkStoredLog(ctx))
	}
	return errors.Join(err, a.printTriage(r))
}

// checkStoredLog is checkLog for the dump of a target.
func (t *target) checkStoredLog(ctx context.Context) error {
	d, err := t.dump(ctx)
	if err != nil {
		return err
	}
	return errors.Join(t.checkLog(ctx, d), d.Close())
}

// reportStdin reports on the log that comes on standard input.
func (a *app) reportStdin(s *symbolFlags) error {
	a.noLines(s)
	r, err := triage.OfLog(a.stdio.In)
	if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	return a.printTriage(r)
}

// noLines warns that a log has no lines of the source, if they were asked for.
func (a *app) noLines(s *symbolFlags) {
	if s.symbols != symbolsOff {
		a.stdio.Warn("corehaul", "--symbols: there is only a log, and lines of the source need the memory of a dump")
	}
}

// reportOf makes the report of a target. With damage, there is a report beside the error.
func (a *app) reportOf(ctx context.Context, t *target, s *symbolFlags) (r *triage.Report, err error) {
	file, err := t.memory(ctx)
	switch {
	case !t.isDump() && errors.Is(err, vmcore.ErrUnknownFormat):
		a.noLines(s)
		return reportOfText(t.path, err)
	case t.isDump() && err != nil:
		a.noLines(s)
		return reportOfStoredLog(ctx, t, err)
	case err != nil:
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	of := func(log io.Reader) (r *triage.Report, err error) {
		m := triage.Open(file)
		err = a.withSymbols(ctx, s, m, func() error {
			r = triage.OfDump(m, log)
			return nil
		})
		return r, err
	}
	if r, err = reportWithLog(ctx, t, file, of); err != nil {
		return nil, err
	}
	if places := a.tellDamage(file); places > 0 {
		return r, cli.VerifyFailed(fmt.Errorf("%s: damaged in %d place(s); the report may be wrong", t.name(), places))
	}
	return r, nil
}

// reportWithLog makes the report of a dump from its memory and its stored log. Without the one, the other has the log too. of makes a report
// with a log, which may be nil.
func reportWithLog(ctx context.Context, t *target, file *memory, of func(log io.Reader) (*triage.Report, error)) (*triage.Report, error) {
	log, unread := t.storedLog(ctx)
	if log != nil {
		defer func() { _ = log.Close() }() // only read
		return of(log)
	}
	r, err := of(nil)
	if err != nil {
		return nil, err
	}
	if unread != nil {
		r.Unread = append(r.Unread, "the stored log: "+unread.Error())
	}
	if r.Log != nil {
		return r, nil
	}
	beside, err := reportWithLogBeside(file, of)
	return cmp.Or(beside, r), err
}

// reportWithLogBeside makes the report of a vmcore file whose memory has no log of a crash from the text beside the file, nil if that has
// none either.
func reportWithLogBeside(file *memory, of func(log io.Reader) (*triage.Report, error)) (*triage.Report, error) {
	log, err := openBeside(file.path)
	if err != nil {
		return nil, nil //nolint:nilerr // there is none
	}
	defer func() { _ = log.Close() }() // only read
	r, err := of(log)
	if err != nil || r.Log == nil {
		return nil, err
	}
	r.Unread = append(r.Unread, "the log in memory: it shows no crash or cannot be read; "+log.Name()+" was read instead")
	return r, nil
}

// reportOfText makes the report of the text of a log. noDump says why the file is no dump.
func reportOfText(path string, noDump error) (*triage.Report, error) {
	log, err := plainfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // only read
	r, err := triage.OfLog(log)
	if err != nil {
		return nil, cli.WithHint(fmt.Errorf("%s: %w", path, err), noDump.Error()+": it was read as the text of a log")
	}
	return r, nil
}

// reportOfStoredLog makes the report of a dump whose memory cannot be read because of why.
func reportOfStoredLog(ctx context.Context, t *target, why error) (*triage.Report, error) {
	log, err := t.storedLog(ctx)
	if err != nil || log == nil {
		return nil, errors.Join(why, err)
	}
	defer func() { _ = log.Close() }() // only read
	r, err := triage.OfLog(log)
	if err != nil {
		return nil, errors.Join(why, fmt.Errorf("%s: %w", t.name(), err))
	}
	r.Unread = append(r.Unread, "memory: "+why.Error())
	if cli.CodeOf(why) == cli.ExitVerify {
		return r, why
	}
	return r, nil
}

// storedLog opens the text that the sender of a dump sent, nil if there is none.
func (t *target) storedLog(ctx context.Context) (io.ReadCloser, error) {
	if !t.isDump() || t.isVMCore() {
		return nil, nil
	}
	d, err := t.dump(ctx)
	if err != nil {
		return nil, err
	}
	log, err := d.OpenLog()
	if err = errors.Join(err, d.Close()); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return log, err
}

// printTriage prints a report.
func (a *app) printTriage(r *triage.Report) error {
	if a.json {
		return cli.JSON(a.stdio.Out, r)
	}
	s, c := &r.System, &r.Crash
	rows := facts{
		{"title", r.Title},
		{"kind", string(r.Kind)},
		{"signature", signatureText(r.Signatures)},
		{"panic", r.PanicLine},
		{"cpu", optionalInt(c.CPU)},
		{"task", taskText(c)},
		{"function", functionText(c.Function, c.Offset, c.Module, c.Livepatch)},
		{"kernel", s.Release},
		{"version", s.Version},
		{"build id", s.BuildID},
		{"nodename", s.Nodename},
		{"machine", s.Machine},
		{"hardware", s.Hardware},
		{"cpus", number(s.CPUs)},
		{"memory", memorySize(s.MemoryBytes)},
		{"crash time", crashDate(s.CrashTime)},
		{"uptime", uptime(s.UptimeMsec)},
		{"taint", taintText(s.Taint)},
		{"read", strings.Join(r.Sources, " and ")},
	}
	for _, line := range r.Unread {
		rows = append(rows, [2]string{"unread", line})
	}
	if err := rows.print(a); err != nil {
		return err
	}
	if b := r.Crashed(); b != nil && len(b.Frames) > 0 {
		return a.printStack(b)
	}
	return a.printLogTrace(r)
}

// printStack prints the stack of the task that crashed, as memory has it.
func (a *app) printStack(t *triage.Backtrace) error {
	var b strings.Builder
	b.WriteString("\ncall trace of the memory:\n")
	for i := range t.Frames {
		if f := &t.Frames[i]; !f.User {
			text := cmp.Or(functionText(f.Function, f.Offset, f.Module, f.Livepatch), f.Address)
			if !f.Proved() {
				text = "? " + text
			}
			fmt.Fprintf(&b, "  %s\n", cli.Printable(text))
			writeLines(&b, f)
		}
	}
	if !t.Complete {
		fmt.Fprintf(&b, "  (the walk ended: %s)\n", cli.Printable(t.End))
	}
	_, err := io.WriteString(a.stdio.Out, b.String())
	return err
}

// printLogTrace prints the call trace that the kernel printed.
func (a *app) printLogTrace(r *triage.Report) error {
	said := r.Log
	if said == nil || len(said.Traces) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString("\ncall trace of the log:\n")
	for _, f := range said.Traces[0].Frames {
		if !f.Unreliable {
			fmt.Fprintf(&b, "  %s\n", cli.Printable(cmp.Or(functionText(f.Function, f.Offset, f.Module, r.Livepatch(f.Module)), f.Address)))
		}
	}
	_, err := io.WriteString(a.stdio.Out, b.String())
	return err
}

// signatureText has the signature by which a crash is known again, its coarse one, and what it is made of. Memory's follows if it is another.
func signatureText(s triage.Signatures) string {
	var b strings.Builder
	for _, of := range []struct {
		what string
		*signature.Signature
	}{{"log", s.Log}, {"memory", s.Memory}} {
		switch {
		case of.Signature == nil || of.what == "memory" && s.Log != nil && s.Log.ID == of.ID:
			continue
		case b.Len() > 0:
			b.WriteString("; " + of.what + ": ")
		}
		fmt.Fprintf(&b, "%s (coarse %s): %s", of.ID, of.Coarse, strings.Join(of.Frames, " < "))
		if of.Vague {
			b.WriteString(" (vague: no call trace)")
		}
	}
	return b.String()
}

func optionalInt(n *int) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(*n)
}

func taskText(c *triage.Crash) string {
	switch {
	case c.PID == nil:
		return c.Comm
	case c.Comm == "":
		return fmt.Sprintf("pid %d", *c.PID)
	}
	return fmt.Sprintf("%s (pid %d)", c.Comm, *c.PID)
}

// functionText formats a place in the code as the kernel does: "crash_null+0x12 [crashmod]". It marks functions of live patches.
func functionText(function string, offset uint64, module string, livepatch bool) string {
	if function == "" {
		return ""
	}
	text := fmt.Sprintf("%s+%#x", function, offset)
	if module != "" {
		text += " [" + module + "]" + livepatchMark(livepatch)
	}
	return text
}

// livepatchMark follows a function of a live patch, which often has the name of the one that it replaces.
func livepatchMark(livepatch bool) string {
	if livepatch {
		return " (live patch)"
	}
	return ""
}
