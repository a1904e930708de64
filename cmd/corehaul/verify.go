package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/scrub"
)

// shownFindings is how many damaged places are printed without --json.
const shownFindings = 50

func newVerify(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "verify {ID|PATH | --all}", GroupID: groupDumps, Args: cobra.MaximumNArgs(1), ValidArgsFunction: cli.Complete(a.completeDump),
		Short: "Read every byte of a dump and compare it with what was sent",
		Long: `Read every byte of a dump. Compare a stored dump with the checksums that its sender
made of the pages, and name each damaged place: header field, page_desc or page, with
pfn, chunk and offset. Record the result for 'ls' and 'show'. If PATH is the directory
of a dump or a file in it, verify that dump, and record nothing. Read and decode every
page of any other vmcore file, and compare the file with the SHA256SUMS beside it if
that has a line for it. Without such a line, damage that still decodes is not found,
and the output says so. Exit code 0: no damage was found, and the dump is complete; 3:
no damage was found, but pages are missing; 5: damage was found.

--all verifies every sealed dump. Exit code 0: no dump is damaged, but some may be
partial; 5: at least one is damaged; 1: no damage was found, but a dump could not be
verified, or there was none to verify.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) == 1) {
				return cli.Usagef("give either one dump or --all")
			}
			if all {
				return a.verifyAll(cmd.Context())
			}
			return a.withTarget(cmd.Context(), args[0], func(t *target) error { return a.verify(cmd.Context(), t) })
		},
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "verify every sealed dump of the store; --json prints one line for each")
	return cmd
}

func (a *app) verify(ctx context.Context, t *target) error {
	tell, done := a.progress("verify")
	report, err := a.verifyTarget(ctx, t, dumpdir.VerifyOptions{Progress: tell})
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

// verifyTarget verifies a file or a dump. It records the result for a sealed dump of the store.
func (a *app) verifyTarget(ctx context.Context, t *target, opts dumpdir.VerifyOptions) (*dumpdir.Report, error) {
	if !t.isDump() {
		return verifyFile(ctx, t.path, opts)
	}
	if t.store != nil && t.entry.Manifest.State != dumpdir.StateArriving {
		return a.check(ctx, t.store, &t.entry, opts)
	}
	d, err := t.dump(ctx)
	if rep := dumpdir.DamageReport(err); rep != nil {
		return rep, nil
	}
	if err != nil {
		return nil, err
	}
	report, err := d.Verify(ctx, opts)
	return report, errors.Join(err, d.Close())
}

// check verifies a sealed dump. If the result cannot be recorded, check warns and returns it anyway.
func (a *app) check(ctx context.Context, store storage.Store, e *storage.Entry, opts dumpdir.VerifyOptions) (*dumpdir.Report, error) {
	report, err := scrub.Check(ctx, store, e, opts)
	if report != nil && err != nil {
		a.stdio.Warn("corehaul", "the result is not recorded: %v", err)
		err = nil
	}
	return report, err
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
		_, err = fmt.Fprintln(out, verdict(r))
	}
	return err
}

// findingLine formats a damaged place for a terminal.
func findingLine(f dumpdir.Finding) string { return cli.Printable(f.String()) }
