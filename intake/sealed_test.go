package intake

import (
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
)

// TestStatesOfASeal holds that a seal leaves no state that SEALED has no word for.
func TestStatesOfASeal(t *testing.T) {
	for state, want := range map[dumpdir.State]protocol.State{
		dumpdir.StateComplete: protocol.StateComplete,
		dumpdir.StatePartial:  protocol.StatePartial,
		dumpdir.StateLogOnly:  protocol.StateLogOnly,
	} {
		if got := sealed("id", "", &dumpdir.Result{State: state}).State; got != want {
			t.Errorf("%s: got %s, want %s", state, got, want)
		}
	}
}
