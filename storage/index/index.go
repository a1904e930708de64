// Package index has the interface of an index, by which a store lists and finds its dumps.
// An index is a cache of the dumps' manifests. The store fills it again if it is lost.
//
// storage/index/sqlite implements it with a local file. storage/index/indextest tests
// every implementation.
package index

import (
	"context"
	"errors"
	"time"

	"github.com/corehaul/corehaul/storage"
)

// ErrUnusable says that the index itself is the problem, so that a new one would help: it is damaged, or of a version that
// this program does not know. Errors do not match it if the index is locked, the disk is full or permissions are missing.
var ErrUnusable = errors.New("this version of the program cannot use the index")

// Index has an entry for each dump. It is safe for concurrent use, also by several processes. Every later call sees a
// change.
type Index interface {
	// Put adds or replaces the entry of a dump, which was read at the time read. It keeps the path unchanged. Of what side
	// files say, it keeps Kind, Title and Signatures only. If the index has a later reading, nothing changes.
	Put(ctx context.Context, e *storage.Entry, read time.Time) error

	// Delete removes the entry of a dump. A missing entry is no error.
	Delete(ctx context.Context, ref storage.Ref) error

	// Built reports whether Rebuild has ever filled the index. Otherwise dumps may be missing.
	Built(ctx context.Context) (bool, error)

	// Rebuild replaces all entries by these, which were read at the time read or later, all at once or not at all. Other
	// entries stay only if they were put after read, because these dumps came meanwhile.
	Rebuild(ctx context.Context, entries []storage.Entry, read time.Time) error

	// List returns the dumps that f chooses, newest first (by When, then by Ref). It does not know pins and ignores
	// f.Pinned. State is that of the manifest.
	List(ctx context.Context, f storage.Filter) ([]storage.Entry, error)

	// Prefix returns at most limit dumps whose id begins with prefix, sorted by host and id. If host is not empty, it
	// returns only dumps of that host.
	Prefix(ctx context.Context, host, prefix string, limit int) ([]storage.Entry, error)

	// Sightings returns at most limit dumps, newest first (by time in milliseconds, then by host and id, backwards), as Entry.Sighting gives them.
	// It begins behind after, or with the newest if that is nil. Side files other than the report do not count.
	Sightings(ctx context.Context, after *storage.Sighting, limit int) ([]storage.Sighting, error)

	// Close closes the index.
	Close() error
}
