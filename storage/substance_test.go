package storage

import (
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
)

func TestSubstance(t *testing.T) {
	dump := func(state dumpdir.State, present, essential uint64) *Entry {
		e := &Entry{Manifest: dumpdir.Manifest{State: state, Plan: &dumpdir.ManifestPlan{Classes: map[string]uint64{}}}}
		e.Manifest.Pages.Present = present
		if essential > 0 {
			e.Manifest.Plan.Classes[dumpdir.EssentialPages] = essential
		}
		return e
	}
	found := dump(dumpdir.StateComplete, 9, 3)
	found.Verification = &dumpdir.Verification{Damaged: 1}
	for name, tc := range map[string]struct {
		e    *Entry
		want Substance
	}{
		"complete":               {dump(dumpdir.StateComplete, 9, 3), AllPages},
		"complete without pages": {dump(dumpdir.StateComplete, 0, 0), NoPages},
		"log":                    {dump(dumpdir.StateLogOnly, 0, 0), NoPages},
		"essential":              {dump(dumpdir.StatePartial, 3, 3), EssentialPages},
		"cut off":                {dump(dumpdir.StatePartial, 2, 3), SomePages},
		"nobody counted":         {dump(dumpdir.StatePartial, 8, 0), SomePages},
		"no plan":                {&Entry{Manifest: dumpdir.Manifest{State: dumpdir.StatePartial, Pages: dumpdir.PageCounts{Present: 1}}}, SomePages},
		"arriving":               {dump(dumpdir.StateArriving, 8, 3), NoPages},
		"damaged":                {dump(dumpdir.StateDamaged, 8, 3), NoPages},
		"found damaged":          {found, NoPages},
	} {
		if got := tc.e.Substance(); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}
