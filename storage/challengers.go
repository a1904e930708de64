package storage

import (
	"context"

	"github.com/corehaul/corehaul/dumpdir"
)

// Challengers is the second place that a store has for each dump. There lies at most one more
// dump of the same crash, with the same host and id and another plan, which is not mixed with the
// first: it waits, out of sight of lists and finds, until it is promoted or dropped.
//
// A challenger never outlives its dump unseen: when the dump is gone (a promotion was killed between its two
// steps, somebody removed the directory by hand) the challenger takes its place, at the latest when the store
// is opened the next time or the dump is resumed or created. Store.Remove removes both.
type Challengers interface {
	// Create begins a challenger of the dump of meta.Host and meta.ID, in place of the one that is there, which is deleted.
	// It is durable on return. The error matches ErrNotFound when there is no such dump, ErrBusy
	// when another process writes the challenger that is there.
	Create(ctx context.Context, meta dumpdir.Meta) (*dumpdir.Writer, error)

	// Resume returns a writer for the challenger, as Store.Resume does for the dump.
	Resume(ctx context.Context, ref Ref, opts ResumeOptions) (*dumpdir.Writer, error)

	// Open opens the challenger for reading, whatever its state. The error matches ErrNotFound.
	Open(ctx context.Context, ref Ref) (*dumpdir.Dump, error)

	// Promote gives the challenger the place of the dump, sealed or not, and deletes the dump that had
	// it. One that is complete, pinned or damaged is put aside instead, where nothing but a person deletes it: nobody who
	// can send is to be able to destroy it. A kill at any instant leaves one of the two in that place, or the challenger to take it. Neither
	// may have a writer, else the error matches ErrBusy; without a challenger it matches ErrNotFound.
	Promote(ctx context.Context, ref Ref) error

	// Drop deletes the challenger. A writer of this process is revoked first; the error matches ErrBusy when another process
	// writes it, ErrNotFound when there is none.
	Drop(ctx context.Context, ref Ref) error

	// List returns the dumps that have a challenger, sorted.
	List(ctx context.Context) ([]Ref, error)
}
