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
	// ErrArriving: the dump is not sealed, and without force the call accepts only sealed dumps.
	ErrArriving = errors.New("dump is still arriving")
	// ErrPinned: the dump has a pin, which protects it from removal.
	ErrPinned = errors.New("dump is pinned")
	// ErrChanged: since the caller looked at the dump, its sender has come back or another dump has replaced it.
	ErrChanged = errors.New("dump has changed meanwhile")
	// ErrBadName: the host or the id breaks the grammar.
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

// Ref is the permanent name of one dump. Senders make the ids, so two hosts may use the same id. Host and id
// together are unique.
type Ref struct {
	Host string `json:"host"`
	ID   string `json:"id"`
}

// String formats r as host/id, which Find takes.
func (r Ref) String() string { return r.Host + "/" + r.ID }

// Filter chooses dumps. Zero fields choose all.
type Filter struct {
	Host         Patterns        // of the whole name
	State        []dumpdir.State // one of these; nil means any
	Since, Until time.Time       // of When; Since included, Until excluded
	Release      Patterns        // of parts of the kernel release
	Panic        Patterns        // of a part of the title or of the panic line
	Pinned       bool            // only pinned ones
	Only         []Ref           // only these; nil means all
	Limit        int             // at most that many, the newest; 0 means all
}

// Space is how much room a store has, in bytes. A store without a bound says Total 0.
type Space struct {
	Total, Free uint64
}

// Usage is what is stored of one host.
type Usage struct {
	Bytes uint64 // that files use on the medium: holes use nothing
	Dumps int
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

	// Resume returns a writer for an existing dump. If a session of this process still writes the dump and
	// opts.Takeover is set, that session loses it, and its calls return dumpdir.ErrRevoked. Without Takeover, or if
	// another process writes the dump, the error matches ErrBusy. The error matches ErrNotFound if there is no
	// such dump, and also if the dump was damaged beyond use: then the store has moved it away, and its sender may
	// begin anew. A damaged dump that was sealed (dumpdir.IsSealedDamage) stays where it is. What its sender sends
	// can become its challenger.
	Resume(ctx context.Context, ref Ref, opts ResumeOptions) (*dumpdir.Writer, error)

	// Take puts a sealed dump that opts.Fill writes, whole, into the store. Nobody sees it before. On return it is durable and listed.
	// If the store has a dump of that name, opts.Instead decides. The error matches ErrBusy if a session writes that one, or another
	// process takes a dump of the same name.
	Take(ctx context.Context, ref Ref, opts TakeOptions) error

	// Open opens a dump for reading, whatever its state. The error matches ErrNotFound.
	Open(ctx context.Context, ref Ref) (*dumpdir.Dump, error)

	// Find resolves what a person typed: an id or a unique beginning of one, with or without host/ in front. An exact id
	// wins over longer ids that begin with it. Errors match ErrNotFound. *AmbiguousError lists the candidates.
	Find(ctx context.Context, name string) (Entry, error)

	// List returns the dumps that f chooses, newest first (by When, then by Ref).
	List(ctx context.Context, f Filter) ([]Entry, error)

	// Sightings returns at most limit dumps, newest first (by At, then by Ref, backwards). It begins behind after, or with the newest if
	// that is nil. It reads the index and no dump, so what a killed process did not note is missing.
	Sightings(ctx context.Context, after *Sighting, limit int) ([]Sighting, error)

	// Remove deletes a dump and its challenger. The dump disappears from List and Find at once, even if a kill
	// interrupts the deletion of its bytes. If one of the two is arriving, the error matches ErrArriving unless
	// opts.Force is set. If another process writes one of them, the error matches ErrBusy even with Force. Writers of
	// this process are revoked first. A pinned dump is never removed: the error matches ErrPinned.
	Remove(ctx context.Context, ref Ref, opts RemoveOptions) error

	// SaveSide writes or replaces a side file of a dump in any state: a *dumpdir.Pin, which protects the dump from
	// Remove, a *dumpdir.Verification or a *dumpdir.StoredReport. The file is durable on return. If as is set, it is the sealed dump that the
	// file describes. If the sender has come back since, or the dump was sealed anew, SaveSide writes nothing and the
	// error matches ErrChanged. So it is if a session has not ended yet after the seal, except for a report, which names its seal and
	// counts for no other. The error matches ErrNotFound if the dump is gone.
	SaveSide(ctx context.Context, ref Ref, f dumpdir.SideFile, as *dumpdir.Manifest) error

	// RemoveSide removes the side file of that name, if the dump has one. The error matches ErrNotFound if there is no such dump.
	RemoveSide(ctx context.Context, ref Ref, name string) error

	// Challengers returns the second place that each dump has.
	Challengers() Challengers

	// CheckWritable returns the error with which the store would refuse a new file now. It leaves nothing behind.
	CheckWritable(ctx context.Context) error

	// Subscribe returns a channel with the dumps that have the event, from now until cancel is called. The channel gives
	// hints: what other processes do gives no hint, a hint may come twice, and hints that the subscriber does not
	// receive in time are lost. A subscriber that needs all dumps calls List at its start and from time to time.
	// Writers never wait for subscribers.
	Subscribe(to Event) (dumps <-chan Ref, cancel func())

	// Usage returns what is stored of a host, its challengers and what was moved aside included. It does not count files that
	// are not published yet, such as a log that is still arriving. It looks at every file, so callers keep what it returned.
	Usage(ctx context.Context, host string) (Usage, error)

	// Space returns how much room the store has.
	Space(ctx context.Context) (Space, error)

	// Reindex rebuilds the index from the dumps.
	Reindex(ctx context.Context) (ReindexReport, error)

	// Close closes the store. Writers and dumps that came from it stay usable.
	Close() error
}

// OpenOptions say how a store is opened. The zero value opens it for reading and writing, and makes it when it is missing.
type OpenOptions struct {
	// ReadOnly creates no directory and no index, and fails if there is no store. It is for commands that only read, or
	// that change an existing dump.
	ReadOnly bool
	// Existing fails if there is no store, as ReadOnly does.
	Existing bool
	// Log receives problems with the index, which do not make a call fail. Nil means slog.Default().
	Log *slog.Logger
}

// ResumeOptions of Store.Resume.
type ResumeOptions struct {
	Takeover bool // take the dump from a session of this process that still writes it
	Reopen   bool // continue a dump that was sealed as partial or log-only
}

// RemoveOptions of Store.Remove.
type RemoveOptions struct {
	Force bool // remove an arriving dump too
	// As, if set, is the dump that the caller looked at. If the dump was sealed anew since, the error matches ErrChanged.
	As *dumpdir.Manifest
}
