package protocol

import (
	"errors"
	"fmt"
	"time"
)

// Code is a stable error code of the protocol. Codes are never renamed or reused. New ones are added at the end. An
// unknown code means the same as [CodeInternal].
//
// A Code is an error, so that errors.Is(err, protocol.CodeBusy) works.
type Code string

// The codes of version 1, in the order of PROTOCOL.md.
const (
	CodeBadFrame     Code = "bad-frame"        // no magic, reserved bits set, or a frame cut short
	CodeBadChecksum  Code = "bad-checksum"     // a frame's CRC-32C does not match
	CodeTooLarge     Code = "too-large"        // a length, count or total above its limit
	CodeBadMessage   Code = "bad-message"      // a payload that does not decode, or a value out of its range
	CodeUnknownType  Code = "unknown-type"     // an unknown message type that may not be ignored
	CodeOutOfOrder   Code = "out-of-order"     // a message that may not come now
	CodeVersion      Code = "version"          // no common protocol version
	CodeIdentity     Code = "identity"         // the peer's identity is not accepted for this
	CodeDeclined     Code = "declined"         // the operator's rules refuse this dump
	CodeBusy         Code = "busy"             // no free slot; come back after retry_after_s
	CodeSuperseded   Code = "superseded"       // a newer session took over the dump
	CodePlanMismatch Code = "plan-mismatch"    // the plan's runs do not give the sums of PLANEND
	CodeNotPlanned   Code = "not-planned"      // a chunk outside the plan
	CodeDuplicate    Code = "duplicate"        // a page that another chunk has brought already
	CodeBadRawSum    Code = "bad-raw-checksum" // decoded pages do not have the checksum of the chunk
	CodeBadEncoding  Code = "bad-encoding"     // an encoding not agreed on, or pages that do not decode
	CodeBadLog       Code = "bad-log"          // the log does not have the length or checksum of LOGEND
	CodeNoSpace      Code = "no-space"         // the receiver has no space
	CodeStorage      Code = "storage"          // the receiver's store failed
	CodeShuttingDown Code = "shutting-down"    // the peer is being stopped
	CodeTimeout      Code = "timeout"          // the peer sent or accepted nothing for too long
	CodeCancelled    Code = "cancelled"        // the peer was told to stop
	CodeInternal     Code = "internal"         // a bug or an unexpected failure of the peer
)

// Error returns the code as on the wire.
func (c Code) Error() string { return string(c) }

// Error is a refusal or failure with a stable code: found by this side, or received in an ERROR message (Remote).
//
// errors.Is matches it with its Code, and with the errors that Err wraps.
type Error struct {
	Code Code
	// Text says what happened, for people: one line, no control characters.
	Text string
	// Hint says what to do next; may be empty.
	Hint string
	// RetryAfter is when the sender may come back; 0 if unknown. Whole seconds on the wire.
	RetryAfter time.Duration
	// Remote says that the error came from the peer; it is not on the wire.
	Remote bool
	// Err is the local cause; it is not on the wire.
	Err error
}

// Errorf returns a local Error with a code and a text as of fmt.Errorf. An error for %w becomes its cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Text: err.Error(), Err: errors.Unwrap(err)}
}

// Error formats e in one line, without the hint.
func (e *Error) Error() string {
	who := ""
	if e.Remote {
		who = "peer: "
	}
	if e.Text == "" {
		return who + string(e.Code)
	}
	return who + string(e.Code) + ": " + e.Text
}

// Is reports whether target is e's code.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && code == e.Code
}

// Hints returns the hint as a list, for callers that print hints of any error.
func (e *Error) Hints() []string {
	if e.Hint == "" {
		return nil
	}
	return []string{e.Hint}
}

// Unwrap returns the local cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether a sender may try the same receiver again after this code, because the cause is neither
// the sender's bytes nor its identity.
func (c Code) Temporary() bool {
	switch c {
	case CodeBusy, CodeNoSpace, CodeStorage, CodeShuttingDown, CodeTimeout, CodeInternal,
		CodeBadFrame, CodeBadChecksum, CodeBadLog, CodeBadRawSum:
		return true
	}
	return false
}
