package scrub

import (
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// Outcome is the result of verifying one dump. "corehaul verify --all --json" prints one in each line.
type Outcome struct {
	storage.Ref
	Result string          `json:"result"`           // ok, damaged, skipped (arriving, or gone) or failed (could not be verified)
	Report *dumpdir.Report `json:"report,omitempty"` // as "verify --json"
	Error  string          `json:"error,omitempty"`  // why it failed
}

// Values of Outcome.Result.
const (
	ResultOK      = "ok"
	ResultDamaged = "damaged"
	ResultSkipped = "skipped"
	ResultFailed  = "failed"
)

// OutcomeOf returns the outcome of a Check of the dump ref.
func OutcomeOf(ref storage.Ref, rep *dumpdir.Report, err error) Outcome {
	switch {
	case Moved(err):
		return Outcome{Ref: ref, Result: ResultSkipped}
	case err != nil:
		return Outcome{Ref: ref, Result: ResultFailed, Error: err.Error()}
	case rep.OK():
		return Outcome{Ref: ref, Result: ResultOK, Report: rep}
	}
	return Outcome{Ref: ref, Result: ResultDamaged, Report: rep}
}
