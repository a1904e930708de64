package dumpdir

import (
	"errors"
	"fmt"
)

// Errors that callers branch on. All of them may arrive wrapped.
var (
	// ErrExist: there is a dump in this directory already.
	ErrExist = errors.New("dump exists already")
	// ErrNotExist: there is no dump in this directory.
	ErrNotExist = errors.New("no such dump")
	// ErrLocked: another writer has this directory.
	ErrLocked = errors.New("dump is being written")
	// ErrRevoked: a newer writer took the dump over; this one can write nothing more.
	ErrRevoked = errors.New("dump was taken over by a newer writer")
	// ErrClosed: the writer or dump was closed.
	ErrClosed = errors.New("dump is closed")
	// ErrSealed: the dump is sealed and takes no more chunks.
	ErrSealed = errors.New("dump is sealed")
	// ErrNoPlan: the call needs a plan and none is stored.
	ErrNoPlan = errors.New("dump has no plan")
	// ErrHavePlan: a plan is stored already; plans are never replaced or mixed.
	ErrHavePlan = errors.New("dump has a plan already")
	// ErrBadPlan: the facts or runs of a plan break its rules.
	ErrBadPlan = errors.New("bad plan")
	// ErrHaveChunk: this chunk was put before. Nothing was written. Not sticky.
	ErrHaveChunk = errors.New("chunk is here already")
	// ErrOutsidePlan: a chunk holds a page or has a number that the plan does not. Nothing was written. Not sticky.
	ErrOutsidePlan = errors.New("chunk is outside the plan")
	// ErrHavePage: a chunk holds a page that another chunk brought. Nothing was written. Not sticky.
	ErrHavePage = errors.New("page is here already")
	// ErrBadChunk: a chunk contradicts itself, or its pages do not decode. Nothing was written. Not sticky.
	ErrBadChunk = errors.New("bad chunk")
	// ErrMissingPages: a seal without a reason was asked for while pages are missing.
	ErrMissingPages = errors.New("pages of the plan are missing")
	// ErrUnsupported: a journal or manifest of a version that this program does not know. Also matches errors.ErrUnsupported.
	ErrUnsupported = fmt.Errorf("unknown format version: %w", errors.ErrUnsupported)
)

// DamageError is stored data that is not what was written. It stops a Resume or
// Open; Verify collects such damage as findings instead.
type DamageError struct {
	File   string // name in the dump directory
	Offset int64  // file offset in bytes, -1 when it has none
	Text   string // what is wrong there
	// Sealed: the dump was sealed, and what is damaged keeps nobody from reading the rest. Nothing of it may be written,
	// and it may not be put out of the way for another.
	Sealed bool
}

// IsSealedDamage reports whether err says that a dump is damaged which was sealed: see DamageError.Sealed.
func IsSealedDamage(err error) bool {
	d, ok := errors.AsType[*DamageError](err)
	return ok && d.Sealed
}

func (e *DamageError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("%s is damaged: %s", e.File, e.Text)
	}
	return fmt.Sprintf("%s is damaged at offset %d: %s", e.File, e.Offset, e.Text)
}

func isDamage(err error) bool {
	_, ok := errors.AsType[*DamageError](err)
	return ok
}
