package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/scrub"
)

// verifyAll verifies all sealed dumps, one after another.
func (a *app) verifyAll(ctx context.Context) error {
	store, err := a.open(ctx, storage.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	entries, err := store.List(ctx, storage.Filter{})
	count := map[string]int{}
	for i := 0; i < len(entries) && err == nil; i++ {
		line := a.verifyOne(ctx, store, &entries[i])
		if err = ctx.Err(); err != nil {
			break
		}
		count[line.Result]++
		err = a.printVerified(&line)
	}
	if err = errors.Join(err, store.Close()); err != nil {
		return err
	}
	if n := count[scrub.ResultDamaged]; n > 0 {
		return cli.VerifyFailed(fmt.Errorf("%d of %d dumps damaged", n, len(entries)))
	}
	if n := count[scrub.ResultFailed]; n > 0 {
		return fmt.Errorf("%d of %d dumps could not be verified", n, len(entries))
	}
	return nothingVerified(count[scrub.ResultOK], len(entries))
}

// nothingVerified returns an error if no dump was verified: a script must not conclude that all dumps are good.
func nothingVerified(verified, dumps int) error {
	switch {
	case verified > 0:
		return nil
	case dumps == 0:
		return cli.WithHint(errors.New("nothing was verified: the store has no dumps"), "--data DIR or $COREHAUL_DATA says where the dumps are")
	}
	return fmt.Errorf("nothing was verified: none of %d dumps is sealed", dumps)
}

func (a *app) verifyOne(ctx context.Context, store storage.Store, e *storage.Entry) scrub.Outcome {
	if e.Manifest.State == dumpdir.StateArriving {
		return scrub.OutcomeOf(e.Ref, nil, storage.ErrArriving)
	}
	tell, done := a.progress("verify " + e.String())
	rep, err := a.check(ctx, store, e, dumpdir.VerifyOptions{Progress: tell})
	done()
	return scrub.OutcomeOf(e.Ref, rep, err)
}

func (a *app) printVerified(line *scrub.Outcome) error {
	if a.json {
		return cli.JSONLine(a.stdio.Out, line)
	}
	text := "not verified: the dump is arriving or gone"
	switch line.Result {
	case scrub.ResultOK:
		text = fmt.Sprintf("%s, no damage found", line.Report.State)
	case scrub.ResultDamaged:
		text = fmt.Sprintf("DAMAGED in %d place(s), the first: %s", line.Report.Damaged, findingLine(line.Report.Findings[0]))
	case scrub.ResultFailed:
		text = "could not be verified: " + cli.Printable(line.Error)
	}
	_, err := fmt.Fprintf(a.stdio.Out, "%s: %s\n", line.Ref, text)
	return err
}
