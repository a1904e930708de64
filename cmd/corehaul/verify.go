package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
)

// shownFindings bounds what is printed of damage without --json.
const shownFindings = 50

func newVerify(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify ID|VMCORE", GroupID: groupDumps, Args: cobra.ExactArgs(1), ValidArgsFunction: cli.Complete(a.completeDump),
		Short: "Read every byte of a dump again and compare it with what was sent",
		Long: `Read every byte of a dump again. A stored dump is compared with the checksums
that the sender made of the pages as it read them, and damage is named: header
field, page_desc or page, with pfn, chunk and offset. Of a vmcore file every page
is read and decoded. Exit code 0: nothing is damaged, and the dump is complete;
3: nothing is damaged, but pages are missing; 5: damage was found.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), args[0], func(t *target) error { return a.verify(cmd.Context(), t) })
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

func (a *app) verify(ctx context.Context, t *target) error {
	opts := dumpdir.VerifyOptions{}
	done := func() {}
	if cli.IsTerminal(a.stdio.Err) {
		opts.Progress, done = a.progress("verify")
	}
	report, err := verifyTarget(ctx, t, opts)
	done()
	if err != nil {
		return err
	}
	if a.json {
		err = cli.JSON(a.stdio.Out, report)
	} else {
		err = a.printReport(t, report)
	}
	if err != nil {
		return err
	}
	switch {
	case !report.OK():
		return cli.VerifyFailed(fmt.Errorf("%s: damaged in %d place(s)", t.name(), report.Damaged))
	case report.State != dumpdir.StateComplete:
		return cli.Partial(nil)
	}
	return nil
}

func verifyTarget(ctx context.Context, t *target, opts dumpdir.VerifyOptions) (*dumpdir.Report, error) {
	if t.store == nil {
		return dumpdir.VerifyFile(ctx, t.path, opts)
	}
	d, err := t.dump(ctx)
	if err != nil {
		return nil, err
	}
	report, err := d.Verify(ctx, opts)
	return report, errors.Join(err, d.Close())
}

func (a *app) printReport(t *target, r *dumpdir.Report) error {
	p := r.Progress
	out := a.stdio.Out
	_, err := fmt.Fprintf(out, "%s: %s, %d of %d pages\n", cli.Printable(t.name()), r.State, p.Present, p.Planned)
	for _, w := range r.Warnings {
		a.stdio.Warn("corehaul", "%s", w)
	}
	for i, f := range r.Findings {
		if i == shownFindings {
			_, err = fmt.Fprintf(out, "... and %d more (--json lists more of them)\n", r.Damaged-uint64(shownFindings))
			break
		}
		_, err = fmt.Fprintln(out, findingLine(f))
	}
	if r.OK() && err == nil {
		_, err = fmt.Fprintln(out, "no damage found")
	}
	return err
}

// findingLine is one place of damage: file, offset, and what lies there.
func findingLine(f dumpdir.Finding) string {
	line := f.File
	if f.Offset >= 0 {
		line += fmt.Sprintf(": offset %d", f.Offset)
	}
	line += ": " + f.Where
	if f.Field != "" {
		line += " " + f.Field
	}
	if f.PFN != nil {
		line += fmt.Sprintf(", pfn %d", uint64(*f.PFN))
	}
	if f.Chunk != nil {
		line += fmt.Sprintf(", chunk %d", *f.Chunk)
	}
	return cli.Printable(line + ": " + f.Text)
}

// progress keeps one line of a terminal up to date. done removes it.
func (a *app) progress(what string) (update func(done, total int64), done func()) {
	last := int64(-1)
	update = func(done, total int64) {
		if total <= 0 || done*100/total == last {
			return
		}
		last = done * 100 / total
		_, _ = fmt.Fprintf(a.stdio.Err, "\r%s: %d%% ", what, last)
	}
	return update, func() {
		if last >= 0 {
			_, _ = fmt.Fprint(a.stdio.Err, "\r\x1b[K")
		}
	}
}
