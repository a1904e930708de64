package dumpdir

import (
	"errors"
	"fmt"
)

// Errors for callers. All of them may be wrapped.
var (
	// ErrExist: this directory has a dump already.
	ErrExist = errors.New("dump exists already")
	// ErrNotExist: this directory has no dump.
	ErrNotExist = errors.New("no such dump")
	// ErrLocked: another writer has locked this directory.
	ErrLocked = errors.New("dump is being written")
	// ErrRevoked: a newer writer took over the dump; this writer writes nothing more.
	ErrRevoked = errors.New("dump was taken over by a newer writer")
	// ErrClosed: the writer or dump was closed.
	ErrClosed = errors.New("dump is closed")
	// ErrSealed: the dump is sealed and accepts no chunks.
	ErrSealed = errors.New("dump is sealed")
	// ErrNoPlan: the call needs a stored plan.
	ErrNoPlan = errors.New("dump has no plan")
	// ErrHavePlan: a plan is stored already. Plans are never replaced or mixed.
	ErrHavePlan = errors.New("dump has a plan already")
	// ErrBadPlan: the facts or runs of a plan violate its rules.
	ErrBadPlan = errors.New("bad plan")
	// ErrHaveChunk: this chunk was put before. Nothing was written. Not sticky.
	ErrHaveChunk = errors.New("chunk is here already")
	// ErrOutsidePlan: the plan lacks the chunk's number or a page of it. Nothing was written. Not sticky.
	ErrOutsidePlan = errors.New("chunk is outside the plan")
	// ErrHavePage: another chunk has a page of this chunk. Nothing was written. Not sticky.
	ErrHavePage = errors.New("page is here already")
	// ErrBadChunk: a chunk contradicts itself, or its pages do not decode. Nothing was written. Not sticky.
	ErrBadChunk = errors.New("bad chunk")
	// ErrMissingPages: Seal without a reason, but pages are missing.
	ErrMissingPages = errors.New("pages of the plan are missing")
	// ErrTooLong: a side file is longer than a reader accepts.
	ErrTooLong = errors.New("file is too long")
	// ErrUnsupported: the version of a journal or manifest is unknown. Also matches errors.ErrUnsupported.
	ErrUnsupported = fmt.Errorf("unknown format version: %w", errors.ErrUnsupported)
)

// DamageError says that stored data differs from what was written. It stops Resume and Open. Verify collects such
// damage as findings instead.
type DamageError struct {
	File   string // name in the dump directory
	Offset int64  // file offset in bytes; -1 if unknown
	Text   string // what is wrong there
	// Sealed: the dump was sealed, and the rest of it can be read. Nothing may write to it, or move it out of the way
	// of another dump.
	Sealed bool
}

// IsSealedDamage reports whether err is about damage of a dump that was sealed: see DamageError.Sealed.
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
