package receiver

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/storage"
)

// Causes with which a session is told to stop.
var (
	errShutdown   = protocol.Errorf(protocol.CodeShuttingDown, "the receiver is being stopped")
	errSuperseded = protocol.Errorf(protocol.CodeSuperseded, "a newer session has taken this dump over")
)

// codes says what a peer is told about the errors of the store.
var codes = []struct {
	err  error
	code protocol.Code
	text string // for the peer: the cause may name paths that are none of its business
}{
	{dumpdir.ErrRevoked, protocol.CodeSuperseded, "a newer session has taken this dump over"},
	{dumpdir.ErrHaveChunk, protocol.CodeDuplicate, "the chunk is here already"},
	{dumpdir.ErrHavePage, protocol.CodeDuplicate, "a page of the chunk is here already"},
	{dumpdir.ErrOutsidePlan, protocol.CodeNotPlanned, "the chunk is outside the plan"},
	{dumpdir.ErrBadChunk, protocol.CodeBadMessage, "the chunk contradicts itself"},
	{dumpdir.ErrHavePlan, protocol.CodePlanMismatch, "another plan is stored for this dump"},
	{dumpdir.ErrBadPlan, protocol.CodeBadMessage, "the plan breaks its rules"},
	{dumpdir.ErrLocked, protocol.CodeBusy, "another process is writing this dump"},
	{storage.ErrBusy, protocol.CodeBusy, "another process is writing this dump"},
	{storage.ErrBadName, protocol.CodeIdentity, "the name cannot be used for a directory"},
	{syscall.ENOSPC, protocol.CodeNoSpace, "the disk is full"},
	{syscall.EDQUOT, protocol.CodeNoSpace, "the disk quota is used up"},
	{os.ErrDeadlineExceeded, protocol.CodeTimeout, "nothing heard for too long"},
}

// chunkError is an error of the store about one chunk.
type chunkError struct {
	seq uint64
	err error
}

func (e *chunkError) Error() string { return fmt.Sprintf("chunk %d: %v", e.seq, e.err) }
func (e *chunkError) Unwrap() error { return e.err }

// Times after which a sender may come back. Without one it comes at once, to whom the
// log is stored and nothing else: somebody has to do something first.
const (
	busyRetryAfter  = 5 * time.Second
	spaceRetryAfter = 30 * time.Second
	storeRetryAfter = 10 * time.Second
)

// wireError returns err as the peer is to hear it. An error that already has a code
// goes as it is.
func wireError(err error) *protocol.Error {
	var coded *protocol.Error
	if errors.As(err, &coded) {
		return coded
	}
	e := classify(err)
	var chunk *chunkError
	if errors.As(err, &chunk) {
		e.Text = fmt.Sprintf("chunk %d: %s", chunk.seq, e.Text)
	}
	switch e.Code {
	case protocol.CodeBusy:
		e.RetryAfter = busyRetryAfter
	case protocol.CodeNoSpace:
		e.RetryAfter = spaceRetryAfter
	case protocol.CodeStorage:
		e.RetryAfter = storeRetryAfter
	}
	return e
}

// classify finds the code of an error of the store or of the connection.
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
