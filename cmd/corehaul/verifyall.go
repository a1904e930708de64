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

// verifiedDump is a line of "verify --all --json".
type verifiedDump struct {
	storage.Ref
	Result string          `json:"result"`           // ok, damaged, skipped (arriving, or gone), failed (could not be verified)
	Report *dumpdir.Report `json:"report,omitempty"` // as "verify --json"
	Error  string          `json:"error,omitempty"`  // why it failed
}

const (
	resultOK      = "ok"
	resultDamaged = "damaged"
	resultSkipped = "skipped"
	resultFailed  = "failed"
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
	if n := count[resultDamaged]; n > 0 {
		return cli.VerifyFailed(fmt.Errorf("%d of %d dumps damaged", n, len(entries)))
	}
	if n := count[resultFailed]; n > 0 {
		return fmt.Errorf("%d of %d dumps could not be verified", n, len(entries))
	}
	return nothingVerified(count[resultOK], len(entries))
}

// nothingVerified returns an error when no dump was verified: a script must not take that for a store of good dumps.
func nothingVerified(verified, dumps int) error {
	switch {
	case verified > 0:
		return nil
	case dumps == 0:
		return cli.WithHint(errors.New("nothing was verified: the store has no dumps"), "--data DIR or $COREHAUL_DATA says where the dumps are")
	}
	return fmt.Errorf("nothing was verified: none of %d dumps is sealed", dumps)
}

func (a *app) verifyOne(ctx context.Context, store storage.Store, e *storage.Entry) verifiedDump {
	line := verifiedDump{Ref: e.Ref, Result: resultSkipped}
	if e.Manifest.State == dumpdir.StateArriving {
		return line
	}
	rep, err := a.check(ctx, store, e, dumpdir.VerifyOptions{})
	switch {
	case scrub.Moved(err):
	case err != nil:
		line.Result, line.Error = resultFailed, err.Error()
	case rep.OK():
		line.Result, line.Report = resultOK, rep
	default:
		line.Result, line.Report = resultDamaged, rep
	}
	return line
}

func (a *app) printVerified(line *verifiedDump) error {
	if a.json {
		return cli.JSONLine(a.stdio.Out, line)
	}
	text := "arriving or gone: not verified"
	switch line.Result {
	case resultOK:
		text = fmt.Sprintf("%s, no damage found", line.Report.State)
	case resultDamaged:
		text = fmt.Sprintf("DAMAGED in %d place(s), the first: %s", line.Report.Damaged, findingLine(line.Report.Findings[0]))
	case resultFailed:
		text = "could not be verified: " + cli.Printable(line.Error)
	}
	_, err := fmt.Fprintf(a.stdio.Out, "%s: %s\n", line.Ref, text)
	return err
}
