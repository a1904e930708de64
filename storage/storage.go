// Package storage is the store of many dumps: the interface that every store
// implements, and what its users need to name, filter and list dumps.
//
// storage/stores opens a store by its URL and knows every implementation; storage/local
// keeps dumps in directories of a local disk; storage/index is the index over them; storage/storagetest holds
// every store to the contract written here. Nothing in this package touches a disk.
package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
)

// Errors that callers branch on. All of them may arrive wrapped.
var (
	// ErrNotFound: no dump has that name.
	ErrNotFound = errors.New("no such dump")
	// ErrExists: a dump with this id is there already for this host.
	ErrExists = errors.New("dump exists already")
	// ErrBusy: a session is writing the dump.
	ErrBusy = errors.New("dump is being written")
	// ErrArriving: the dump is not sealed, and the call takes sealed ones unless it is forced.
	ErrArriving = errors.New("dump is still arriving")
	// ErrPinned: somebody wants the dump kept.
	ErrPinned = errors.New("dump is pinned")
	// ErrChanged: the dump is not the one any more that the caller looked at: its sender came back, or it was replaced.
	ErrChanged = errors.New("dump has changed meanwhile")
	// ErrBadName: a host or id that breaks the grammar.
	ErrBadName = errors.New("bad name")
)

// AmbiguousError is a name that more than one dump has. It matches ErrNotFound too, so
// that a caller that does not care treats it as no match.
type AmbiguousError struct {
	Name       string
	Candidates []Ref // sorted; at most MaxCandidates
}

// MaxCandidates bounds AmbiguousError.Candidates.
const MaxCandidates = 20

func (e *AmbiguousError) Error() string {
	names := make([]string, len(e.Candidates))
	for i, c := range e.Candidates {
		names[i] = c.String()
	}
	return fmt.Sprintf("%q names several dumps: %s", e.Name, strings.Join(names, ", "))
}

// Is makes the error match ErrNotFound.
func (e *AmbiguousError) Is(target error) bool { return target == ErrNotFound }

// Ref names one dump for good. Ids are made by senders, so two hosts may show the same one: only
// both together are a name.
type Ref struct {
	Host string `json:"host"`
	ID   string `json:"id"`
}

// String formats r as host/id, which Find takes.
func (r Ref) String() string { return r.Host + "/" + r.ID }

// Filter chooses dumps. Zero fields choose all.
type Filter struct {
	Host         string
	State        dumpdir.State
	Since, Until time.Time // of When; Since included, Until excluded
	Release      string    // part of the kernel release
	Panic        string    // part of the panic line, letter case ignored
	Pinned       bool      // only pinned ones
	Limit        int       // at most that many, the newest; 0 means all
}

// Space is how much room a store has, in bytes. A store without a bound says Total 0.
type Space struct {
	Total, Free uint64
}

// ReindexReport tells what a rebuild of the index found.
type ReindexReport struct {
	Dumps    int      `json:"dumps"`
	Damaged  int      `json:"damaged"`            // of those, ones whose manifest or journal is damaged
	Ignored  []string `json:"ignored,omitempty"`  // directories that are no dumps, bounded
	Finished []string `json:"finished,omitempty"` // removals that a kill had interrupted
}

// Store keeps dumps. Implementations are safe for concurrent use, and for several processes at once
// where the medium is shared.
//
// The dumps themselves are the truth; an index over them is a cache that the store
// rebuilds by itself when it is missing or unreadable.
type Store interface {
	// Create makes a new dump for meta.Host and meta.ID and returns its writer. On return the dump
	// is durable and listed as arriving. Errors match ErrExists, ErrBadName.
	Create(ctx context.Context, meta dumpdir.Meta) (*dumpdir.Writer, error)

	// Resume returns a writer for a dump that is there. A session of the same process that still has
	// it loses it when opts.Takeover is set, and gets dumpdir.ErrRevoked from then on; else, and when
	// another process has it, the error matches ErrBusy. A missing dump matches ErrNotFound. So does one
	// that is damaged beyond use, which the store has put out of the way: its sender may begin anew. One that was sealed
	// (dumpdir.IsSealedDamage) is left as it is; what its sender has can become its challenger.
	Resume(ctx context.Context, ref Ref, opts ResumeOptions) (*dumpdir.Writer, error)

	// Open opens a dump for reading, whatever its state. The error matches ErrNotFound.
	Open(ctx context.Context, ref Ref) (*dumpdir.Dump, error)

	// Find resolves what a person typed: an id, a unique beginning of one, or host/ in front of
	// either. An exact id wins over longer ones that begin with it. Errors match ErrNotFound; *AmbiguousError lists the candidates.
	Find(ctx context.Context, name string) (Entry, error)

	// List returns the dumps that f chooses, newest first (by When, then by Ref).
	List(ctx context.Context, f Filter) ([]Entry, error)

	// Remove deletes a dump. It disappears from lists and finds at once and for good, even if a kill
	// interrupts the deletion of its bytes. Its challenger goes with it. When one of them is arriving it needs opts.Force, else the error
	// matches ErrArriving; one that another process is writing is ErrBusy even then. A writer of this process is revoked first.
	// A pinned dump is never removed: ErrPinned.
	Remove(ctx context.Context, ref Ref, opts RemoveOptions) error

	// SaveSide writes a side file of a dump, in any state, in place of the one that is there: a *dumpdir.Pin, which
	// keeps the dump from Remove, or a *dumpdir.Verification. It is durable on return. as, when set, is the sealed dump that the
	// file says something of: when its sender has come back since, or it was sealed anew, nothing is written and the
	// error matches ErrChanged. It matches ErrNotFound when the dump is gone.
	SaveSide(ctx context.Context, ref Ref, f dumpdir.SideFile, as *dumpdir.Manifest) error

	// RemoveSide takes the side file of that name away. A dump without one is left as it is. The error matches ErrNotFound.
	RemoveSide(ctx context.Context, ref Ref, name string) error

	// Challengers returns the second place that each dump has: see there.
	Challengers() Challengers

	// CheckWritable returns the error with which the store would refuse a new file now. It leaves nothing behind.
	CheckWritable(ctx context.Context) error

	// Subscribe returns the dumps of which an event is told, from now until cancel is called. They are hints: of what
	// other processes do there is none, one may come twice, and those that a subscriber does not take in time are lost. So
	// who needs all dumps looks through List at times, and always when it starts. Writers never wait for a subscriber.
	Subscribe(to Event) (dumps <-chan Ref, cancel func())

	// Space tells how much room there is.
	Space(ctx context.Context) (Space, error)

	// Reindex rebuilds the index from the dumps.
	Reindex(ctx context.Context) (ReindexReport, error)

	// Close closes the store. Writers and dumps that came from it stay usable.
	Close() error
}

// OpenOptions say how a store is opened. The zero value opens it for reading and writing, and makes it when it is missing.
type OpenOptions struct {
	// ReadOnly makes no directory and no index, and fails when there is no store: for commands that look, or do
	// something to a dump that is there.
	ReadOnly bool
	// Existing fails when there is no store, as ReadOnly does.
	Existing bool
	// Log takes what goes wrong with the index, which is no reason to fail. Nil means slog.Default().
	Log *slog.Logger
}

// ResumeOptions of Store.Resume.
type ResumeOptions struct {
	Takeover bool // take the dump from a session of this process that still has it
	Reopen   bool // go on with a dump that was sealed partial or log-only
}

// RemoveOptions of Store.Remove.
type RemoveOptions struct {
	Force bool // also a dump that is arriving
	// As, when set, is the dump that the caller looked at: if it was sealed anew since, the error matches ErrChanged.
	As *dumpdir.Manifest
}
