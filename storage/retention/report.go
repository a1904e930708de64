package retention

import (
	"cmp"
	"context"
	"fmt"

	"github.com/corehaul/corehaul/storage"
)

// Report is the result of CarryOut. "corehaul prune --json" prints it.
type Report struct {
	DryRun  bool           `json:"dry_run"`
	Removed []ReportedDump `json:"removed"` // with dry_run: to be removed
	Kept    []ReportedDump `json:"kept"`    // exceed a limit and stay
	Unmet   []string       `json:"unmet"`   // limits that are not met
}

// ReportedDump is one dump of a Report.
type ReportedDump struct {
	storage.Ref
	Bytes uint64 `json:"bytes"`
	Panic string `json:"panic"`
	// Signature is the ID of the signature by which dumps of the same crash are counted; empty if the dump has none.
	Signature string `json:"signature,omitempty"`
	Why       string `json:"why"`
	By        string `json:"by,omitempty"` // what keeps it
}

func reported(e *storage.Entry, why, by string) ReportedDump {
	d := ReportedDump{Ref: e.Ref, Bytes: e.Bytes(), Panic: e.Manifest.PanicLine, Why: why, By: by}
	if s := e.Signature(); s.NamesPlace() {
		d.Signature = s.ID
	}
	return d
}

// CarryOut removes the dumps of a plan, unless dry is set, and returns a report. The report is valid with an error too. The
// error is that of ctx, or names a dump that could not be removed.
func CarryOut(ctx context.Context, store storage.Store, plan Plan, dry bool) (*Report, error) {
	rep := &Report{DryRun: dry, Removed: []ReportedDump{}, Kept: []ReportedDump{}, Unmet: append([]string{}, plan.Unmet...)}
	for i := range plan.Held {
		h := &plan.Held[i]
		rep.Kept = append(rep.Kept, reported(&h.Entry, h.Why, h.By))
	}
	var failed error
	failures := 0
	tell := func(x Removal, err error) {
		switch {
		case err == nil:
			rep.Removed = append(rep.Removed, reported(&x.Entry, x.Why, ""))
		case Kept(err):
			rep.Kept = append(rep.Kept, reported(&x.Entry, x.Why, err.Error()))
		default:
			failures++
			failed = cmp.Or(failed, err)
		}
	}
	if dry {
		for _, x := range plan.Remove {
			tell(x, nil)
		}
		return rep, nil
	}
	if err := Apply(ctx, store, plan, tell); err != nil {
		return rep, err
	}
	if failed != nil {
		return rep, fmt.Errorf("%d dumps could not be removed, the first: %w", failures, failed)
	}
	return rep, nil
}
