package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/storage"
)

// incomingName has a directory for each host, and in it one for each dump that is being taken. That one is locked meanwhile.
const incomingName = "incoming"

// incomingDump is the directory of the dump in it. It gets its place by a rename.
const incomingDump = "dump"

// Take implements storage.Store. After a kill, the dump has its place, or the next process that opens the store deletes what there is of it.
func (s *Store) Take(ctx context.Context, ref storage.Ref, opts storage.TakeOptions) (err error) {
	if err := storage.CheckRef(ref); err != nil {
		return err
	}
	place := filepath.Join(s.dir, incomingName, ref.Host, ref.ID)
	if err := s.fs.MkdirAll(place); err != nil {
		return err
	}
	lock, err := s.fs.Lock(place)
	if err != nil {
		return storeError(err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(place), lock.Close()) }()
	dir := filepath.Join(place, incomingDump)
	if err := os.RemoveAll(dir); err != nil { // of a process that was killed
		return err
	}
	if err := s.fs.MkdirAll(dir); err != nil {
		return err
	}
	if err := opts.Fill(ctx, s.fs, dir); err != nil {
		return err
	}
	return s.place(ctx, ref, dir, opts.Instead)
}

// place gives the dump in dir its place in the store.
func (s *Store) place(ctx context.Context, ref storage.Ref, dir string, instead func(*storage.Entry) storage.Replacement) error {
	e, err := s.readEntry(dir)
	if err != nil {
		return err
	}
	if e.Ref != ref || e.Manifest.State == dumpdir.StateArriving {
		return fmt.Errorf("%s cannot be taken: what was copied is the dump %s, %s", ref, e.Ref, e.Manifest.State)
	}
	sl := s.slot(ref)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	to, err := s.locateToWrite(ctx, ref)
	if errors.Is(err, storage.ErrNotFound) {
		_, err = s.moveToNewPlace(ctx, ref, dir)
		return err
	}
	if err != nil {
		return err
	}
	stored, err := s.readAnyEntry(to)
	if err != nil {
		return err
	}
	s.readSides(&stored)
	answer := storage.KeepStored
	if instead != nil {
		answer = instead(&stored)
	}
	if answer == storage.KeepStored {
		return fmt.Errorf("%s: %w", ref, storage.ErrExists)
	}
	return s.putInPlace(ctx, ref, dir, answer == storage.PutStoredAside)
}

// emptyIncoming deletes what killed processes left of dumps that they were taking.
func (s *Store) emptyIncoming(ctx context.Context) error {
	hosts, err := subdirs(filepath.Join(s.dir, incomingName))
	for _, host := range hosts {
		dumps, rerr := subdirs(host)
		err = errors.Join(err, rerr)
		for _, dir := range dumps {
			if ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			err = errors.Join(err, s.deleteIncoming(dir))
		}
	}
	return err
}

// deleteIncoming deletes a directory unless it is locked.
func (s *Store) deleteIncoming(dir string) error {
	lock, err := s.fs.Lock(dir)
	if errors.Is(err, dumpdir.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	root, err := plainfile.OpenRoot(filepath.Dir(dir))
	if err == nil {
		err = errors.Join(root.RemoveAll(filepath.Base(dir)), root.Close())
	}
	return errors.Join(err, lock.Close())
}
