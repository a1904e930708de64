package depotcopy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
)

// Errors of Take.
var (
	// ErrNoBetter says that the store has the dump, or had it, at least as good.
	ErrNoBetter = errors.New("it was taken before")
	// ErrChanges says that somebody changed the directory.
	ErrChanges = errors.New("it changed while it was copied")
)

// Dump is a dump directory that may be copied.
type Dump struct {
	From *os.Root
	Seen Contents // what the caller knows of it; a dump that is not like this any more is not taken
	// Known, if set, is how good a dump of this name was that was taken before, whatever the store has now.
	Known *Standing
	// Progress, if set, is called for each piece of a step, Copying or Verifying, with bytes.
	Progress func(step string, done, total uint64)

	Manifest *dumpdir.Manifest
	Ref      storage.Ref
	State    dumpdir.State
	What     Standing // how good it is: before Take by its own word, and then by its verification
	First    string   // the first damage that the verification found
}

// Steps of Dump.Progress.
const (
	Copying   = "copy"
	Verifying = "verify the copy of"
)

// Open reads what a dump says of itself.
func Open(from *os.Root, seen Contents) (*Dump, error) {
	d, err := dumpdir.Open(source{from}, ".")
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	m := d.Manifest()
	k := &Dump{From: from, Seen: seen, Manifest: m, Ref: storage.Ref{Host: m.Host, ID: m.ID}, State: d.State(), What: standingOf(d.State(), m)}
	return k, errors.Join(storage.CheckRef(k.Ref), d.Close())
}

// Take copies the dump into the store, if it is better than Known and what is stored, and fits. Room is that of the store. Errors match
// ErrNoBetter and ErrChanges, those of admission.Room, and those of Store.Take.
func (k *Dump) Take(ctx context.Context, store storage.Store, room *admission.Room) error {
	if k.Known != nil && !k.What.Better(*k.Known) {
		return ErrNoBetter
	}
	stored, err := store.Find(ctx, k.Ref.String())
	switch {
	case err == nil && stored.Ref == k.Ref:
		if k.What.instead(&stored) == storage.KeepStored {
			return ErrNoBetter
		}
	case err != nil && !errors.Is(err, storage.ErrNotFound):
		return err
	}
	if err := room.CheckFits(ctx, k.Ref.Host, k.Seen.Bytes); err != nil {
		return err
	}
	account := room.Account(k.Ref.Host)
	made, err := account.ChargeDump(ctx)
	if err != nil {
		return err
	}
	defer made()
	err = store.Take(ctx, k.Ref, storage.TakeOptions{
		Fill:    func(ctx context.Context, fsys dumpdir.FS, dir string) error { return k.fill(ctx, account, fsys, dir) },
		Instead: func(stored *storage.Entry) storage.Replacement { return k.What.instead(stored) },
	})
	if errors.Is(err, storage.ErrExists) {
		return ErrNoBetter
	}
	return err
}

// Better reports whether Take would put the dump in the place of a stored one, if its word is true.
func (k *Dump) Better(stored *storage.Entry) bool {
	return k.What.instead(stored) != storage.KeepStored
}

func (k *Dump) progress(step string, done, total uint64) {
	if k.Progress != nil {
		k.Progress(step, done, total)
	}
}

// fill copies the dump to dir, seals it if its sender has not, and verifies the copy.
func (k *Dump) fill(ctx context.Context, account *admission.Account, fsys dumpdir.FS, dir string) error {
	c := &copying{src: source{k.From}, to: fsys, account: account, progress: func(done uint64) { k.progress(Copying, done, k.Seen.Bytes) }}
	if err := c.all(ctx, dir); err != nil {
		return err
	}
	now, err := Look(k.From)
	if err != nil {
		return err
	}
	if now.Signature != k.Seen.Signature {
		return ErrChanges
	}
	if !k.Seen.Sealed {
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
func (k *Dump) verify(ctx context.Context, fsys dumpdir.FS, dir string) (err error) {
	d, err := dumpdir.Open(fsys, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	rep, err := d.Verify(ctx, dumpdir.VerifyOptions{
		Progress: func(done, total int64) { k.progress(Verifying, uint64(done), uint64(total)) },
	})
	if err != nil {
		return err
	}
	m := d.Manifest()
	if ref := (storage.Ref{Host: m.Host, ID: m.ID}); ref != k.Ref {
		return ErrChanges
	}
	if k.Manifest, k.State = m, d.State(); !rep.OK() {
		k.State, k.First = dumpdir.StateDamaged, rep.Findings[0].String()
	}
	if k.What = standingOf(k.State, m); k.Known != nil && !k.What.Better(*k.Known) {
		return ErrNoBetter
	}
	return dumpdir.SaveSideFile(fsys, dir, dumpdir.NewVerification(m, rep, time.Now()))
}

// ownNames are the files of a dump that are copied, beside those kept with it. Side files are not: a verification, a report or a pin would be the
// word of whoever can write there.
var ownNames = []string{
	dumpdir.VMCoreName, dumpdir.IncompleteName, dumpdir.LogName, dumpdir.JournalName, dumpdir.ManifestName, dumpdir.SumsName, dumpdir.KeptListName,
}

// all copies the files of the dump.
func (c *copying) all(ctx context.Context, dir string) error {
	names, err := c.src.ReadDir(".")
	if err != nil {
		return err
	}
	kept, err := keptNames(c.src, names)
	if err != nil {
		return err
	}
	if len(kept) > 0 {
		if err := c.to.MkdirAll(path.Join(dir, dumpdir.KeptDirName)); err != nil {
			return err
		}
	}
	for _, name := range append(present(names, ownNames), kept...) {
		if err := c.file(ctx, name, path.Join(dir, name)); err != nil {
			return fmt.Errorf("copy %s: %w", filepath.Base(name), err)
		}
	}
	if len(kept) > 0 {
		if err := c.to.SyncDir(path.Join(dir, dumpdir.KeptDirName)); err != nil {
			return err
		}
	}
	return c.to.SyncDir(dir)
}
