package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/storage"
)

// lockSides waits for the lock of side files: flock(2) on the directory of dumps, which every user of the store can
// open. Writers of side files hold it, and so does a process that moves a dump which may have some.
func (s *Store) lockSides() (unlock func(), err error) {
	d, err := plainfile.OpenDir(s.dumps())
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return func() {
		if err := d.Close(); err != nil {
			s.opts.Log.Warn("closing the lock of side files", "error", err)
		}
	}, nil
}

// withSides runs fn on the directory of a dump with the lock of side files.
func (s *Store) withSides(ref storage.Ref, fn func(dir string) error) error {
	unlock, err := s.lockSides()
	if err != nil {
		return err
	}
	defer unlock()
	dir, err := s.locate(ref)
	if err == nil {
		err = storeError(fn(dir))
	}
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		err = fmt.Errorf("%s: %w", ref, err)
	}
	return err
}

// SaveSide implements storage.Store.
func (s *Store) SaveSide(ctx context.Context, ref storage.Ref, f dumpdir.SideFile, as *dumpdir.Manifest) error {
	if err := s.saveSide(ref, f, as); err != nil {
		return err
	}
	s.indexSide(ctx, ref, f.SideName())
	if _, report := f.(*dumpdir.StoredReport); report {
		s.Give(storage.Reported, ref)
	}
	return nil
}

// saveSide is SaveSide without the index.
func (s *Store) saveSide(ref storage.Ref, f dumpdir.SideFile, as *dumpdir.Manifest) error {
	_, report := f.(*dumpdir.StoredReport)
	if as != nil && !report { // a sender that comes back waits here, and is not refused as busy
		sl := s.slot(ref)
		sl.mu.Lock()
		defer sl.mu.Unlock()
	}
	return s.withSides(ref, func(dir string) error {
		var err error
		switch {
		case as == nil:
		case report: // a session may hold the dump for long after its seal
			err = s.checkSeal(dir, as)
		default:
			err = s.checkUnchanged(dir, as)
		}
		if err != nil {
			return err
		}
		return dumpdir.SaveSideFile(s.fs, dir, f)
	})
}

// RemoveSide implements storage.Store.
func (s *Store) RemoveSide(ctx context.Context, ref storage.Ref, name string) error {
	err := s.withSides(ref, func(dir string) error { return dumpdir.RemoveSideFile(s.fs, dir, name) })
	if err == nil {
		s.indexSide(ctx, ref, name)
	}
	return err
}

// indexSide brings the index up to date after a change of a side file that the index has something of. It reads the dump, so
// nobody may have to wait for it.
func (s *Store) indexSide(ctx context.Context, ref storage.Ref, name string) {
	if name != dumpdir.ReportName {
		return
	}
	if dir, err := s.locate(ref); err == nil { // otherwise the dump is gone by now
		s.updateIndexFrom(ctx, dir)
	}
}

// checkUnchanged returns ErrChanged if the dump has a writer or another seal than as. It takes the writer's lock for an
// instant to find a writer that has begun.
func (s *Store) checkUnchanged(dir string, as *dumpdir.Manifest) error {
	lock, err := s.fs.Lock(dir)
	if errors.Is(err, dumpdir.ErrLocked) {
		return storage.ErrChanged
	}
	if err != nil {
		return err
	}
	return errors.Join(s.checkSeal(dir, as), lock.Close())
}

// checkSeal returns ErrChanged unless the dump in dir has the seal of as. A dump that cannot be read counts as
// unchanged.
func (s *Store) checkSeal(dir string, as *dumpdir.Manifest) error {
	e, err := s.readEntry(dir)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	m := &e.Manifest
	same := dumpdir.NewVerification(as, &dumpdir.Report{}, time.Time{}).Of(m)
	if !same || m.State == dumpdir.StateArriving || m.Pages != as.Pages {
		return storage.ErrChanged
	}
	return nil
}

// pinError returns ErrPinned for a pinned dump. A pin that cannot be read counts as a pin.
func (s *Store) pinError(dir string) error {
	pin, err := dumpdir.ReadSideFile[dumpdir.Pin](s.fs, dir)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", storage.ErrPinned, err)
	case pin != nil && pin.Reason != "":
		return fmt.Errorf("%w (%s)", storage.ErrPinned, pin.Reason)
	case pin != nil:
		return storage.ErrPinned
	}
	return nil
}

// readSides adds what the directory of a dump says beside its manifest to an entry.
func (s *Store) readSides(e *storage.Entry) {
	e.ReadSides(s.fs)
	e.Holes = holesOf(filepath.Join(e.Path, dumpdir.VMCoreName))
	e.KeptBytes, _ = dumpdir.KeptBytes(s.fs, e.Path) // verify reports a damaged list
}

// copyPin gives the dump in directory to the pin of the dump in from.
func (s *Store) copyPin(from, to string) error {
	pin, err := dumpdir.ReadSideFile[dumpdir.Pin](s.fs, from)
	if err != nil {
		pin = dumpdir.NewPin(time.Now(), "as the dump before, whose pin could not be read")
	}
	if pin == nil {
		return nil
	}
	return dumpdir.SaveSideFile(s.fs, to, pin)
}
