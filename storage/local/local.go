// Package local is the store on a local disk.
package local

import (
	"context"
	"errors"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

var errNotYet = errors.New("not yet")

// Store is the store under one data directory.
type Store struct{}

// Options of Open. The zero value is right.
type Options struct {
	// ReadOnly makes no directory and fails when there is none: for commands that only look.
	ReadOnly bool
}

// Open opens the store under dir, which it makes when missing.
func Open(ctx context.Context, dir string, opts Options) (*Store, error) { return nil, errNotYet }

var _ storage.Store = (*Store)(nil)

func (s *Store) Create(ctx context.Context, meta dumpdir.Meta) (*dumpdir.Writer, error) {
	return nil, errNotYet
}

func (s *Store) Resume(ctx context.Context, ref storage.Ref, opts storage.ResumeOptions) (*dumpdir.Writer, error) {
	return nil, errNotYet
}

func (s *Store) Open(ctx context.Context, ref storage.Ref) (*dumpdir.Dump, error) {
	return nil, errNotYet
}

func (s *Store) Find(ctx context.Context, name string) (storage.Entry, error) {
	return storage.Entry{}, errNotYet
}

func (s *Store) List(ctx context.Context, f storage.Filter) ([]storage.Entry, error) {
	return nil, errNotYet
}

func (s *Store) Remove(ctx context.Context, ref storage.Ref, opts storage.RemoveOptions) error {
	return errNotYet
}

func (s *Store) Space(ctx context.Context) (storage.Space, error) { return storage.Space{}, errNotYet }

func (s *Store) Reindex(ctx context.Context) (storage.ReindexReport, error) {
	return storage.ReindexReport{}, errNotYet
}

func (s *Store) Close() error { return nil }
