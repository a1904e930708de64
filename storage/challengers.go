package storage

import (
	"context"

	"github.com/corehaul/corehaul/dumpdir"
)

// Challengers is the second place that a store has for each dump. A challenger is another dump of the same crash, with
// the same host and id and a different plan. A dump has at most one. List and Find do not show it. It stays apart from
// the dump until it is promoted or dropped.
//
// If a dump disappears (a promotion was killed between its two steps, or a person removed the directory), its
// challenger takes its place. This happens when the dump is resumed or created, or at the next start of the store.
// Store.Remove removes both.
type Challengers interface {
	// Create begins a challenger of the dump of meta.Host and meta.ID. It deletes the challenger that the dump has. The
	// new one is durable on return. The error matches ErrNotFound if there is no such dump, and ErrBusy if
	// another process writes the old challenger.
	Create(ctx context.Context, meta dumpdir.Meta) (*dumpdir.Writer, error)

	// Resume returns a writer for the challenger, as Store.Resume does for the dump.
	Resume(ctx context.Context, ref Ref, opts ResumeOptions) (*dumpdir.Writer, error)

	// Open opens the challenger for reading, whatever its state. The error matches ErrNotFound.
	Open(ctx context.Context, ref Ref) (*dumpdir.Dump, error)

	// Promote puts the challenger, sealed or not, in the place of the dump and deletes the old dump. An old dump that
	// is complete, pinned or damaged is moved aside instead, and only a person deletes it: a sender must not be
	// able to destroy it. After a kill at any instant, one of the two is in the place, or the challenger takes it
	// later. The error matches ErrBusy if one of them has a writer, and ErrNotFound if there is no challenger.
	Promote(ctx context.Context, ref Ref) error

	// Drop deletes the challenger. A writer of this process is revoked first. The error matches ErrBusy if another
	// process writes it, and ErrNotFound if there is none.
	Drop(ctx context.Context, ref Ref) error

	// List returns the dumps that have a challenger, sorted.
	List(ctx context.Context) ([]Ref, error)
}
