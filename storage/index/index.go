// Package index is what a store lists and finds its dumps by: a cache of what the dumps' own manifests say, which the
// store fills again whenever it is gone.
//
// storage/index/sqlite keeps one in a local file; storage/index/indextest holds every implementation to the contract written
// here.
package index

import (
	"context"
	"errors"
	"time"

	"github.com/corehaul/corehaul/storage"
)

// ErrUnusable is matched by errors that say that the index itself is at fault, so that a new one in its place would do: it is
// damaged, or of a version that this program does not know. It is not when somebody has it locked, when the disk is full or
// rights are missing: a new one would fare no better.
var ErrUnusable = errors.New("this version of the program cannot use the index")

// Index notes dumps. Several processes may use it at once, and all methods may be called at the same time. What one of them
// has changed, every later call sees.
type Index interface {
	// Put notes a dump as it was read at a time, without what its side files say. The path is kept as it is given. An older
	// reading than the one that is noted changes nothing.
	Put(ctx context.Context, e *storage.Entry, read time.Time) error

	// Delete forgets a dump. One that is not noted is no error.
	Delete(ctx context.Context, ref storage.Ref) error

	// Built reports whether the index was ever filled by Rebuild. One that was not may lack dumps.
	Built(ctx context.Context) (bool, error)

	// Rebuild makes the index hold exactly these dumps, read at the time read or later, all at once or not at all. Dumps that
	// are not among them stay only if they were noted after read: they came meanwhile.
	Rebuild(ctx context.Context, entries []storage.Entry, read time.Time) error

	// List returns the dumps that f chooses, newest first (by When, then by Ref). It does not know pins: f.Pinned says nothing.
	// The state is that of the manifest.
	List(ctx context.Context, f storage.Filter) ([]storage.Entry, error)

	// Prefix returns at most limit dumps whose id begins with prefix, of one host unless host is empty, sorted by host and id.
	Prefix(ctx context.Context, host, prefix string, limit int) ([]storage.Entry, error)

	// Close closes the index.
	Close() error
}
