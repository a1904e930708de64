package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// challengers implements storage.Challengers. A challenger has no time in the name of its directory and no entry in the
// index. It gets both when it is promoted.
type challengers struct{ s *Store }

var _ storage.Challengers = challengers{}

// Challengers implements storage.Store.
func (s *Store) Challengers() storage.Challengers { return challengers{s} }

func (s *Store) challengerDir(ref storage.Ref) string {
	return filepath.Join(s.dir, nextName, ref.Host, ref.ID)
}

// locateChallenger returns the directory of a challenger. The error matches ErrNotFound.
func (s *Store) locateChallenger(ref storage.Ref) (string, error) {
	if err := storage.CheckRef(ref); err != nil {
		return "", err
	}
	dir := s.challengerDir(ref)
	have, err := s.readID(dir)
	switch {
	case errors.Is(err, dumpdir.ErrNotExist), err == nil && have != ref.ID:
		return "", fmt.Errorf("challenger of %s: %w", ref, storage.ErrNotFound)
	case isOSError(err):
		return "", err
	}
	return dir, nil // one that is damaged shows when it is opened
}

// isOSError reports whether err comes from the file system and not from the contents of a file.
func isOSError(err error) bool {
	_, ok := errors.AsType[*fs.PathError](err)
	return ok
}

// Create implements storage.Challengers.
func (c challengers) Create(_ context.Context, meta dumpdir.Meta) (*dumpdir.Writer, error) {
	s, ref := c.s, storage.Ref{Host: meta.Host, ID: meta.ID}
	sl := s.slot(ref)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if _, err := s.locate(ref); err != nil {
		return nil, err
	}
	if err := s.deleteChallenger(ref, sl); err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	if meta.StartTime.IsZero() {
		meta.StartTime = time.Now()
	}
	w, err := dumpdir.Create(s.fs, s.challengerDir(ref), meta, dumpdir.Options{})
	if err != nil {
		return nil, storeError(err)
	}
	sl.next = w
	return w, nil
}

// Resume implements storage.Challengers.
func (c challengers) Resume(_ context.Context, ref storage.Ref, opts storage.ResumeOptions) (*dumpdir.Writer, error) {
	sl := c.s.slot(ref)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	dir, err := c.s.locateChallenger(ref)
	if err != nil {
		return nil, err
	}
	w, err := c.s.resume(ref, dir, &sl.next, opts, dumpdir.Options{Reopen: opts.Reopen})
	if dumpdir.IsSealedDamage(err) { // no list shows it, and its sender needs the place
		return nil, c.s.moveToDamaged(ref, dir, err)
	}
	return w, err
}

// Open implements storage.Challengers.
func (c challengers) Open(_ context.Context, ref storage.Ref) (*dumpdir.Dump, error) {
	dir, err := c.s.locateChallenger(ref)
	if err != nil {
		return nil, err
	}
	d, err := dumpdir.Open(c.s.fs, dir)
	return d, storeError(err)
}

// Drop implements storage.Challengers.
func (c challengers) Drop(_ context.Context, ref storage.Ref) error {
	sl := c.s.slot(ref)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	return c.s.deleteChallenger(ref, sl)
}

// deleteChallenger deletes a challenger. The slot is held.
func (s *Store) deleteChallenger(ref storage.Ref, sl *slot) error {
	dir, err := s.locateChallenger(ref)
	if err != nil {
		return err
	}
	if err := revoke(&sl.next); err != nil {
		return err
	}
	lock, err := s.fs.Lock(dir)
	if err != nil {
		return storeError(err)
	}
	trash, err := s.moveTo(trashName, ref, dir)
	if err == nil {
		err = os.RemoveAll(trash)
	}
	return errors.Join(err, lock.Close())
}

// Promote implements storage.Challengers. Dump and challenger change places in one step. If the file system cannot do
// that, or the old dump has to be kept, the old dump moves away first. promoteOrphan finishes a promotion that a kill
// interrupts in between.
func (c challengers) Promote(ctx context.Context, ref storage.Ref) error {
	s := c.s
	sl := s.slot(ref)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	dir, err := s.locateChallenger(ref)
	if err != nil {
		return err
	}
	// Held to the end, so that no other process believes that the dump of this challenger is gone.
	lock, err := s.fs.Lock(dir)
	if err != nil {
		return storeError(err)
	}
	return errors.Join(s.putInPlace(ctx, ref, dir, false), lock.Close())
}

// putInPlace puts the dump in dir in the place of the stored one, and deletes that unless it has to be kept. The slot is held.
func (s *Store) putInPlace(ctx context.Context, ref storage.Ref, dir string, keep bool) error {
	to, trash, err := s.promote(ctx, ref, dir, keep)
	if err != nil {
		return err
	}
	if e := s.updateIndexFrom(ctx, to); e != nil {
		s.tell(e) // outside of the list it has told nobody
	}
	return os.RemoveAll(trash)
}

// promote moves both directories and returns their new places. trash is empty if the old dump must not be deleted.
func (s *Store) promote(ctx context.Context, ref storage.Ref, dir string, keep bool) (to, trash string, err error) {
	to, err = s.locate(ref)
	if err != nil {
		return "", "", err
	}
	// List reads arriving dumps from their directories, so the index is right wherever a kill interrupts this.
	read := time.Now()
	if e, err := s.readEntry(to); err == nil {
		e.Manifest.State = dumpdir.StateArriving
		s.updateIndex(ctx, &e, read)
	}
	lock, err := s.fs.Lock(to)
	if err != nil {
		return "", "", storeError(err)
	}
	trash, err = s.replaceStored(ref, dir, to, keep || s.keepWhenReplaced(to))
	return to, trash, errors.Join(err, lock.Close())
}

// replaceStored moves the dump in to away, to where only people delete it if keep is set, and the one in dir to its place. That one gets the pin.
func (s *Store) replaceStored(ref storage.Ref, dir, to string, keep bool) (trash string, err error) {
	unlock, err := s.lockSides()
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := s.copyPin(to, dir); err != nil {
		return "", err
	}
	if keep {
		aside, err := s.moveTo(replacedName, ref, to)
		if err != nil {
			return "", err
		}
		s.opts.Log.Warn("a dump was replaced and put aside", "host", ref.Host, "dump", ref.ID, "to", aside)
		return "", s.moveChallenger(dir, to)
	}
	err = s.exchange(dir, to)
	if err == nil {
		return s.moveTo(trashName, ref, dir)
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		return "", err
	}
	if trash, err = s.moveTo(trashName, ref, to); err != nil {
		return "", err
	}
	return trash, s.moveChallenger(dir, to)
}

// keepWhenReplaced reports whether a dump must be kept when its challenger replaces it: a complete, pinned or damaged
// one. People look at damaged dumps.
func (s *Store) keepWhenReplaced(dir string) bool {
	e, err := s.readEntry(dir)
	whole := err == nil && (e.State() == dumpdir.StateComplete || e.State() == dumpdir.StateDamaged)
	return whole || isDamage(err) || s.pinError(dir) != nil
}

// exchange durably swaps the directories of a dump and its challenger in one step. After a kill, the old dump is the
// challenger, and is dropped like any other that is behind. The error matches errors.ErrUnsupported if the file
// system cannot swap.
func (s *Store) exchange(dir, to string) error {
	x, ok := s.fs.(dumpdir.Exchanger)
	if !ok {
		return errors.ErrUnsupported
	}
	if err := x.Exchange(dir, to); err != nil {
		return err
	}
	return errors.Join(s.fs.SyncDir(filepath.Dir(to)), s.fs.SyncDir(filepath.Dir(dir)))
}

// moveChallenger renames a challenger to a place among the dumps, durably.
func (s *Store) moveChallenger(dir, to string) error {
	if err := s.fs.MkdirAll(filepath.Dir(to)); err != nil {
		return err
	}
	made := s.adding(filepath.Base(filepath.Dir(to)))
	if err := s.fs.Rename(dir, to); err != nil {
		return err
	}
	made(to)
	return errors.Join(s.fs.SyncDir(filepath.Dir(to)), s.fs.SyncDir(filepath.Dir(dir)))
}

// updateIndexFrom brings the index up to date with the dump in dir, and returns what it read there, nil if nothing.
func (s *Store) updateIndexFrom(ctx context.Context, dir string) *storage.Entry {
	read := time.Now()
	e, err := s.readEntry(dir)
	if err != nil {
		s.opts.Log.Warn("the index was not updated", "path", dir, "error", err)
		return nil
	}
	s.updateIndex(ctx, &e, read)
	return &e
}

// promoteOrphan moves a challenger whose dump is gone to the place of the dump, and returns that. The error matches
// ErrNotFound if there is no challenger, and ErrBusy if its lock is held, for example by a promotion.
func (s *Store) promoteOrphan(ctx context.Context, ref storage.Ref) (string, error) {
	dir, err := s.locateChallenger(ref)
	if err != nil {
		return "", err
	}
	lock, err := s.fs.Lock(dir)
	if err != nil {
		return "", storeError(err)
	}
	to, err := s.locate(ref)
	if errors.Is(err, storage.ErrNotFound) {
		if to, err = s.moveToNewPlace(ctx, ref, dir); err == nil {
			s.opts.Log.Warn("a dump was gone, and the one of another plan took its place", "host", ref.Host, "dump", ref.ID, "path", to)
		}
	}
	return to, errors.Join(err, lock.Close())
}

// moveToNewPlace moves a challenger to the directory that a new dump would get.
func (s *Store) moveToNewPlace(ctx context.Context, ref storage.Ref, dir string) (string, error) {
	e, err := s.readEntry(dir)
	if err != nil {
		return "", err
	}
	meta := dumpdir.Meta{ID: ref.ID, StartTime: e.Manifest.StartTime}
	if e.Manifest.CrashTime != nil {
		meta.CrashTime = *e.Manifest.CrashTime
	}
	to := filepath.Join(s.dumps(), ref.Host, dumpdir.DirName(&meta))
	if _, err := os.Stat(to); err == nil {
		to = longName(to, ref.ID)
	}
	if err := s.moveChallenger(dir, to); err != nil {
		return "", err
	}
	if e := s.updateIndexFrom(ctx, to); e != nil {
		s.tell(e)
	}
	return to, nil
}

// promoteOrphans promotes all challengers whose dumps are gone.
func (s *Store) promoteOrphans(ctx context.Context) error {
	refs, err := s.Challengers().List(ctx)
	for _, ref := range refs {
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if _, lerr := s.locate(ref); !errors.Is(lerr, storage.ErrNotFound) {
			continue
		}
		if _, ierr := s.promoteOrphan(ctx, ref); !errors.Is(ierr, storage.ErrBusy) {
			err = errors.Join(err, ierr)
		}
	}
	return err
}

// List implements storage.Challengers.
func (c challengers) List(ctx context.Context) ([]storage.Ref, error) {
	var refs []storage.Ref
	root := filepath.Join(c.s.dir, nextName)
	hosts, err := c.s.fs.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, host := range hosts {
		ids, rerr := c.s.fs.ReadDir(filepath.Join(root, host))
		if rerr != nil {
			continue // no directory: none of ours
		}
		for _, id := range ids {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			ref := storage.Ref{Host: host, ID: id}
			if _, err := c.s.locateChallenger(ref); err == nil {
				refs = append(refs, ref)
			}
		}
	}
	return refs, err
}
