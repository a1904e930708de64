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
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/storage"
)

// Remove implements storage.Store.
func (s *Store) Remove(ctx context.Context, ref storage.Ref, opts storage.RemoveOptions) error {
	dir, err := s.locate(ref)
	if err != nil {
		return err
	}
	sl := s.slot(ref)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if err := s.checkRemovable(ref, dir, opts); err != nil {
		return err
	}
	if !opts.Force {
		if err := arrivingError(s.fs, s.challengerDir(ref)); err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
	}
	// The challenger goes first: alone, it would take the dump's place.
	if err := s.deleteChallenger(ref, sl); err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if err := revoke(&sl.w); err != nil {
		return err
	}
	lock, err := s.fs.Lock(dir)
	if err != nil {
		return storeError(err)
	}
	trash, err := s.moveToTrash(ref, dir, opts)
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	err = s.withIndex(ctx, func(ix *indexHandle) error { return ix.Delete(ctx, ref) })
	if errors.Is(err, errNoIndex) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(trash), lock.Close())
}

// moveToTrash moves a dump to the trash and returns its new place. It asks checkRemovable again: the caller holds the
// lock of the dump, so no sender can come back, and the lock of side files keeps others from pinning the dump.
func (s *Store) moveToTrash(ref storage.Ref, dir string, opts storage.RemoveOptions) (trash string, err error) {
	unlock, err := s.lockSides()
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := s.checkRemovable(ref, dir, opts); err != nil {
		return "", err
	}
	return s.moveTo(trashName, ref, dir)
}

// checkRemovable returns why a dump may not be removed. It ignores the challenger.
func (s *Store) checkRemovable(ref storage.Ref, dir string, opts storage.RemoveOptions) error {
	err := s.pinError(dir)
	if err == nil && !opts.Force {
		err = arrivingError(s.fs, dir)
	}
	if err == nil && opts.As != nil {
		err = s.checkSeal(dir, opts.As)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	return nil
}

// arrivingError returns ErrArriving for a dump that is not sealed, and nil for one that is missing or cannot be read.
func arrivingError(fsys dumpdir.FS, dir string) error {
	d, err := dumpdir.Open(fsys, dir)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	state := d.State()
	if err := d.Close(); err != nil {
		return err
	}
	if state == dumpdir.StateArriving {
		return storage.ErrArriving
	}
	return nil
}

// revoke closes the writer of this process. Its session gets an error, and the lock is free.
func revoke(w **dumpdir.Writer) error {
	if closed(*w) {
		return nil
	}
	mine, err := (*w).Takeover()
	if errors.Is(err, dumpdir.ErrClosed) || errors.Is(err, dumpdir.ErrRevoked) {
		return nil
	}
	if err != nil {
		return err
	}
	*w = mine
	return mine.Close()
}

// moveTo durably moves a dump to the directory of that name beside dumps/, and returns its new place.
func (s *Store) moveTo(name string, ref storage.Ref, dir string) (string, error) {
	parent := filepath.Join(s.dir, name)
	if err := s.fs.MkdirAll(parent); err != nil {
		return "", err
	}
	to := filepath.Join(parent, fmt.Sprintf("%s-%s-%d", ref.Host, ref.ID, time.Now().UnixNano()))
	if err := s.fs.Rename(dir, to); err != nil {
		return "", err
	}
	if err := s.fs.SyncDir(parent); err != nil {
		return "", err
	}
	return to, s.fs.SyncDir(filepath.Dir(dir))
}

// emptyTrash finishes deletions that were interrupted, and returns what it removed.
func (s *Store) emptyTrash(ctx context.Context) (removed []string, err error) {
	trash := filepath.Join(s.dir, trashName)
	root, err := plainfile.OpenRoot(trash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // only opened to delete below it
	names, err := s.fs.ReadDir(trash)
	for _, name := range names {
		if ctx.Err() != nil {
			return removed, errors.Join(err, ctx.Err())
		}
		if rerr := root.RemoveAll(name); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		removed = append(removed, name)
	}
	return removed, err
}
