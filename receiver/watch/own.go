package watch

import (
	"context"
	"errors"
	"os"

	"github.com/corehaul/corehaul/depotcopy"
	"github.com/corehaul/corehaul/dumpdir"
)

// takeOwn takes a dump directory. The error matches errEmpty if it is none.
func (r *root) takeOwn(ctx context.Context, top *os.Root, f *found, t *track) (took bool, err error) {
	if _, _, own := dumpdir.AtPath(r.abs(f.rel)); !own {
		return r.takeFiles(ctx, top, f, t)
	}
	from, err := top.OpenRoot(f.rel)
	if err != nil {
		return false, err
	}
	defer func() { _ = from.Close() }() // only read
	d, err := depotcopy.Open(from, f.Contents)
	if err != nil {
		return false, err
	}
	d.Progress = func(step string, _, _ uint64) {
		allows := patience
		if step == depotcopy.Verifying { // it reads a dump between two calls
			allows = longPatience
		}
		r.busy(step+" "+r.abs(f.rel), allows)
	}
	known, was := r.mem.standing(d.Ref)
	if was {
		d.Known = &known
	}
	r.log.Debug("taking a dump from a watched directory", "host", d.Ref.Host, "dump", d.Ref.ID, "state", d.State, "path", r.abs(f.rel))
	switch err := d.Take(ctx, r.Store, r.Room); {
	case errors.Is(err, depotcopy.ErrNoBetter):
		r.tellNoBetter(f, d)
		if !was {
			r.mem.took(d.Ref, d.What, r.clock())
		}
		return false, nil
	case err != nil:
		return false, err
	}
	r.mem.took(d.Ref, d.What, r.clock())
	r.tell(f, d)
	return true, nil
}

// tell logs what was taken.
func (r *root) tell(f *found, d *depotcopy.Dump) {
	r.taken()
	log := r.log.With("host", d.Ref.Host, "dump", d.Ref.ID, "path", r.abs(f.rel))
	switch {
	case d.What.Damaged:
		log.Warn("took a damaged dump from a watched directory", "damage", d.First)
	case !f.Sealed:
		log.Warn("took a dump from a watched directory whose sender did not come back", "pages", d.What.Pages, "complete", d.What.Complete)
	default:
		log.Info("took a dump from a watched directory", "state", d.State, "pages", d.What.Pages)
	}
}

// tellNoBetter logs that the dump was left where it is.
func (r *root) tellNoBetter(f *found, d *depotcopy.Dump) {
	log := r.log.With("host", d.Ref.Host, "dump", d.Ref.ID, "path", r.abs(f.rel))
	if d.First != "" {
		log.Warn("a dump in a watched directory is damaged; the one that was taken before stays", "damage", d.First)
		return
	}
	log.Info("a dump in a watched directory was taken before, or the store has one that is as good")
}
