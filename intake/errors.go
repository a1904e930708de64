package intake

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
)

// codes maps errors of a dump directory to codes and texts for the peer.
var codes = []struct {
	err  error
	code protocol.Code
	text string // for the peer, which should not see the paths in the cause
}{
	{dumpdir.ErrRevoked, protocol.CodeSuperseded, "a newer session has taken this dump over"},
	{dumpdir.ErrHaveChunk, protocol.CodeDuplicate, "the chunk is here already"},
	{dumpdir.ErrHavePage, protocol.CodeDuplicate, "a page of the chunk is here already"},
	{dumpdir.ErrOutsidePlan, protocol.CodeNotPlanned, "the chunk is outside the plan"},
	{dumpdir.ErrBadChunk, protocol.CodeBadMessage, "the chunk contradicts itself"},
	{dumpdir.ErrHavePlan, protocol.CodePlanMismatch, "another plan is stored for this dump"},
	{dumpdir.ErrBadPlan, protocol.CodeBadMessage, "the plan breaks its rules"},
	{dumpdir.ErrLocked, protocol.CodeBusy, "another process is writing this dump"},
	{syscall.ENOSPC, protocol.CodeNoSpace, "the disk is full"},
	{syscall.EDQUOT, protocol.CodeNoSpace, "the disk quota is used up"},
	{os.ErrDeadlineExceeded, protocol.CodeTimeout, "the peer was silent for too long"},
}

// ChunkError is an error of a dump directory about one chunk.
type ChunkError struct {
	Seq uint64
	Err error
}

// Error names the chunk.
func (e *ChunkError) Error() string { return fmt.Sprintf("chunk %d: %v", e.Seq, e.Err) }

// Unwrap returns the error itself.
func (e *ChunkError) Unwrap() error { return e.Err }

// Times after which a sender may come back. An error without such a time needs somebody to act first; its sender
// comes back at once.
const (
	BusyRetryAfter  = 5 * time.Second
	SpaceRetryAfter = 30 * time.Second
	storeRetryAfter = 10 * time.Second
)

// WireError returns err for the peer. An error with a code stays as it is.
func WireError(err error) *protocol.Error {
	var coded *protocol.Error
	if errors.As(err, &coded) {
		return coded
	}
	e := classify(err)
	var chunk *ChunkError
	if errors.As(err, &chunk) {
		e.Text = fmt.Sprintf("chunk %d: %s", chunk.Seq, e.Text)
	}
	switch e.Code {
	case protocol.CodeBusy:
		e.RetryAfter = BusyRetryAfter
	case protocol.CodeNoSpace:
		e.RetryAfter = SpaceRetryAfter
	case protocol.CodeStorage:
		e.RetryAfter = storeRetryAfter
	}
	return e
}

// classify returns the code for an error of a dump directory or of the connection.
func classify(err error) *protocol.Error {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &protocol.Error{Code: c.code, Text: c.text, Err: err}
		}
	}
	var damage *dumpdir.DamageError
	if errors.As(err, &damage) || errors.Is(err, dumpdir.ErrUnsupported) {
		return &protocol.Error{Code: protocol.CodeStorage, Text: "what is stored of this dump is damaged", Err: err}
	}
	return &protocol.Error{Code: protocol.CodeStorage, Text: "the store failed", Err: err}
}
