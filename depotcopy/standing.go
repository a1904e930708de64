package depotcopy

import (
	"slices"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// Standing is how much of a crash a dump has.
type Standing struct {
	Pages    uint64 `json:"pages"`
	Complete bool   `json:"complete"`
	Damaged  bool   `json:"damaged,omitempty"`
}

func standingOf(state dumpdir.State, m *dumpdir.Manifest) Standing {
	return Standing{
		Pages: m.Pages.Present, Complete: m.Plan != nil && m.Pages.Missing == 0 && state != dumpdir.StatePartial, Damaged: state == dumpdir.StateDamaged,
	}
}

// Better reports whether s is worth more than another dump of the same crash. It is the rule for challengers: one with all its pages is better than
// one without, and then more pages are better. A damaged dump is never better, and is replaced by one that has as many pages.
func (s Standing) Better(than Standing) bool {
	switch {
	case s.Damaged:
		return false
	case than.Damaged:
		return s.Complete || s.Pages >= max(than.Pages, 1)
	case s.Complete != than.Complete:
		return s.Complete
	}
	return s.Pages > than.Pages
}

// unproved are the transports of dumps whose name nobody has proved: see docs/layout.md, part 6.
var unproved = []string{"nfs", "sftp", "disk", "file"}

// instead says what becomes of a stored dump for the sake of one that somebody wrote into a directory. Whoever can write there can give a dump any name.
// So it never destroys a dump whose sender has proved its name.
func (s Standing) instead(stored *storage.Entry) storage.Replacement {
	switch {
	case !s.Better(standingOf(stored.State(), &stored.Manifest)):
		return storage.KeepStored
	case slices.Contains(unproved, stored.Manifest.Transport):
		return storage.ReplaceStored
	}
	return storage.PutStoredAside
}
