package intake_test

import (
	"errors"
	"testing"

	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// Both receivers, the one on a disk and the one over SFTP, ask this of every plan.
func TestCheckPlanWithoutPages(t *testing.T) {
	some := []mem.Range{{Start: 1 << 30, End: 1<<30 + 512}}
	for name, tc := range map[string]struct {
		kept    uint64
		ram     []mem.Range
		refused bool
	}{
		"no pages of some RAM":     {0, some, true},
		"no pages of no RAM":       {0, nil, false},
		"no pages of empty ranges": {0, []mem.Range{{Start: 4096, End: 4096}}, false},
		"a page":                   {1, some, false},
	} {
		err := intake.CheckPlan(&protocol.PlanEnd{Kept: tc.kept}, tc.ram)
		if errors.Is(err, protocol.CodePlanMismatch) != tc.refused || (err != nil) != tc.refused {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
