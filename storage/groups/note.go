package groups

import (
	"context"
	"time"

	"github.com/corehaul/corehaul/storage"
)

// Note writes the regressions into the state in a directory that it does not have yet, so that they stay when their dumps are removed. It opens
// no dump. Whoever removes dumps calls it first. If nothing is said to be resolved, it reads the state only.
func Note(ctx context.Context, src Source, dir string) error {
	st, err := Read(dir)
	if err != nil || !st.mayRegress() {
		return err
	}
	gs, err := Collect(ctx, src, st, storage.Filter{}, time.Now())
	if err != nil {
		return err
	}
	return gs.note(dir, st)
}

// mayRegress reports whether something is resolved and no regression of it is noted.
func (st *State) mayRegress() bool {
	for _, m := range st.Signatures {
		if m.Resolved != nil && m.Resolved.Again == nil {
			return true
		}
	}
	return false
}

// note writes the regressions of these groups, which were made with the state old.
func (gs *Groups) note(dir string, old *State) error {
	unsaid := map[string]*Again{}
	for _, g := range gs.All {
		for sig, again := range g.unsaid {
			unsaid[sig] = again
		}
	}
	if len(unsaid) == 0 {
		return nil
	}
	return Update(dir, func(st *State) error {
		for sig, again := range unsaid {
			// Somebody may have resolved it again, or reopened it, meanwhile.
			if now, then := st.mark(sig).Resolved, old.mark(sig).Resolved; now != nil && now.Made == then.Made {
				now.Again = again
			}
		}
		return nil
	})
}
