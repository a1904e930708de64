package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// errNoBetter says that a dump was taken before, at least as good.
var errNoBetter = errors.New("it was taken before")

// taking is a dump directory that is being taken.
type taking struct {
	*root
	f     *found
	from  *os.Root
	ref   storage.Ref
	known *standing // of the dump of this name that was taken before; nil: none
	what  standing  // of this one
	first string    // the first damage
}

// takeOwn takes a dump directory. The error matches errEmpty if it is none.
func (r *root) takeOwn(ctx context.Context, top *os.Root, f *found, t *track) (took bool, err error) {
	if _, _, own := dumpdir.AtPath(r.abs(f.rel)); !own {
		return r.takeFiles(ctx, f, t)
	}
	from, err := top.OpenRoot(f.rel)
	if err != nil {
		return false, err
	}
	defer func() { _ = from.Close() }() // only read
	k := &taking{root: r, f: f, from: from}
	m, err := k.describe()
	if err != nil {
		return false, err
	}
	err = k.take(ctx, m)
	switch {
	case errors.Is(err, errNoBetter), errors.Is(err, storage.ErrExists):
		k.tellNoBetter()
		if k.known == nil {
			r.mem.took(k.ref, k.what, r.clock())
		}
		return false, nil
	case err != nil:
		return false, err
	}
	r.mem.took(k.ref, k.what, r.clock())
	k.tell(m)
	return true, nil
}

// describe reads what the dump says of itself.
func (k *taking) describe() (*dumpdir.Manifest, error) {
	d, err := dumpdir.Open(source{k.from}, ".")
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	m := d.Manifest()
	k.ref, k.what = storage.Ref{Host: m.Host, ID: m.ID}, standingOf(d.State(), m)
	if known, ok := k.mem.standing(k.ref); ok {
		k.known = &known
	}
	return m, errors.Join(storage.CheckRef(k.ref), d.Close())
}

// take copies the dump into the store, if it is better than what was taken before and is stored, and fits.
func (k *taking) take(ctx context.Context, m *dumpdir.Manifest) error {
	if k.known != nil && !k.what.better(*k.known) {
		return errNoBetter
	}
	stored, err := k.Store.Find(ctx, k.ref.String())
	switch {
	case err == nil && stored.Ref == k.ref:
		if k.what.instead(&stored) == storage.KeepStored {
			return errNoBetter
		}
	case err != nil && !errors.Is(err, storage.ErrNotFound):
		return err
	}
	if err := k.Room.CheckFits(ctx, k.ref.Host, k.f.bytes); err != nil {
		return err
	}
	made, err := k.Room.Account(k.ref.Host).ChargeDump(ctx)
	if err != nil {
		return err
	}
	defer made()
	k.log.Debug("copying a dump from a watched directory", "host", k.ref.Host, "dump", k.ref.ID, "state", m.State, "path", k.abs(k.f.rel))
	return k.Store.Take(ctx, k.ref, storage.TakeOptions{
		Fill:    k.fill,
		Instead: func(stored *storage.Entry) storage.Replacement { return k.what.instead(stored) },
	})
}

// fill copies the dump to dir, seals it if its writer has not, and verifies the copy.
func (k *taking) fill(ctx context.Context, fsys dumpdir.FS, dir string) error {
	if err := k.copyAll(ctx, fsys, dir); err != nil {
		return err
	}
	if err := k.checkSame(ctx); err != nil {
		return err
	}
	if !k.f.sealed {
		if err := sealAbandoned(ctx, fsys, dir); err != nil {
			return fmt.Errorf("its writer is gone, and it cannot be sealed: %w", err)
		}
	}
	return k.verify(ctx, fsys, dir)
}

// sealAbandoned seals a dump as what it is.
func sealAbandoned(ctx context.Context, fsys dumpdir.FS, dir string) error {
	w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
	if err != nil {
		return err
	}
	_, err = w.Seal(ctx, dumpdir.ReasonGone)
	return errors.Join(err, w.Close())
}

// verify verifies the copy and records the result beside it, before anybody sees it.
func (k *taking) verify(ctx context.Context, fsys dumpdir.FS, dir string) (err error) {
	d, err := dumpdir.Open(fsys, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	rep, err := d.Verify(ctx, dumpdir.VerifyOptions{Progress: func(_, _ int64) { k.busy("verify the copy of "+k.f.rel, longPatience) }})
	if err != nil {
		return err
	}
	m, state := d.Manifest(), d.State()
	if ref := (storage.Ref{Host: m.Host, ID: m.ID}); ref != k.ref {
		return errChanges
	}
	if !rep.OK() {
		state, k.first = dumpdir.StateDamaged, rep.Findings[0].String()
	}
	if k.what = standingOf(state, m); k.known != nil && !k.what.better(*k.known) {
		return errNoBetter
	}
	return dumpdir.SaveSideFile(fsys, dir, dumpdir.NewVerification(m, rep, time.Now()))
}

// checkSame returns errChanges if the directory is not as the walk saw it.
func (k *taking) checkSame(ctx context.Context) error {
	w := &walk{root: k.root, ctx: ctx}
	l, err := w.list(k.from, k.f.rel)
	if err != nil {
		return err
	}
	if l.judge(k.f.rel, time.Time{}).Signature != k.f.Signature {
		return errChanges
	}
	return nil
}

// tell logs what was taken.
func (k *taking) tell(m *dumpdir.Manifest) {
	k.taken()
	log := k.log.With("host", k.ref.Host, "dump", k.ref.ID, "path", k.abs(k.f.rel))
	switch {
	case k.what.Damaged:
		log.Warn("took a damaged dump from a watched directory", "damage", k.first)
	case !k.f.sealed:
		log.Warn("took a dump from a watched directory whose sender did not come back", "pages", k.what.Pages, "complete", k.what.Complete)
	default:
		log.Info("took a dump from a watched directory", "state", m.State, "pages", k.what.Pages)
	}
}

// tellNoBetter logs that the dump was left where it is.
func (k *taking) tellNoBetter() {
	log := k.log.With("host", k.ref.Host, "dump", k.ref.ID, "path", k.abs(k.f.rel))
	if k.first != "" {
		log.Warn("a dump in a watched directory is damaged; the one that was taken before stays", "damage", k.first)
		return
	}
	log.Info("a dump in a watched directory was taken before, or the store has one that is as good")
}

// ownNames are the files of a dump that are copied, beside those kept with it. Side files are not: a verification, a report or a pin would be the
// word of whoever can write there.
var ownNames = []string{
	dumpdir.VMCoreName, dumpdir.IncompleteName, dumpdir.LogName, dumpdir.JournalName, dumpdir.ManifestName, dumpdir.SumsName, dumpdir.KeptListName,
}

// copyAll copies the files of the dump.
func (k *taking) copyAll(ctx context.Context, fsys dumpdir.FS, dir string) error {
	src := source{k.from}
	names, err := src.ReadDir(".")
	if err != nil {
		return err
	}
	kept, err := keptNames(src, names)
	if err != nil {
		return err
	}
	if len(kept) > 0 {
		if err := fsys.MkdirAll(path.Join(dir, dumpdir.KeptDirName)); err != nil {
			return err
		}
	}
	for _, name := range append(present(names, ownNames), kept...) {
		if err := k.copyFile(ctx, src, fsys, name, path.Join(dir, name)); err != nil {
			return fmt.Errorf("copy %s: %w", filepath.Base(name), err)
		}
	}
	if len(kept) > 0 {
		if err := fsys.SyncDir(path.Join(dir, dumpdir.KeptDirName)); err != nil {
			return err
		}
	}
	return fsys.SyncDir(dir)
}
