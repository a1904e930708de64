package sender

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/protocol"
)

// ErrDeadline means that no receiver sealed the dump before the deadline, or within the time that a seal may take after it.
var ErrDeadline = errors.New("the deadline has passed and no receiver has sealed the dump")

// A SendError says that no receiver took the dump.
type SendError struct {
	// Failures has an entry for each target that was tried, in the order of the options.
	Failures []TargetError
	// Sessions counts the attempts to connect.
	Sessions uint64
	// Deadline is set when the deadline has come. The error then matches ErrDeadline.
	Deadline bool
}

// An InterruptedError says that somebody ended a Send before the dump was sealed. It matches the error of the context.
type InterruptedError struct {
	// Stored has the targets that have a part of the dump. Their Err is nil.
	Stored []TargetError
	// Err is that of the context.
	Err error
}

// Error says what is stored, and where.
func (e *InterruptedError) Error() string {
	list := []string{"interrupted"}
	for i := range e.Stored {
		t := &e.Stored[i]
		has := "the log"
		if t.Pages > 0 && t.Planned > 0 {
			has += fmt.Sprintf(" and %d of %d pages (%d%%)", t.Pages, t.Planned, t.Pages*100/t.Planned)
		}
		list = append(list, fmt.Sprintf("%s has %s, safely stored", t.Target, has))
	}
	if len(e.Stored) == 0 {
		list = append(list, "nothing of the dump is stored")
	}
	return strings.Join(list, "; ")
}

// Unwrap returns the error of the context.
func (e *InterruptedError) Unwrap() error { return e.Err }

// A TargetError says why one target failed, and what it has of the dump.
type TargetError struct {
	Target string
	// LogStored is set when the log is stored there.
	LogStored bool
	// Pages of Planned are stored there. The receiver is going to seal them by itself.
	Pages, Planned uint64
	// Err is the last failure.
	Err error
}

// Error names the target, the failure, and what the target has of the dump.
func (e *TargetError) Error() string {
	s := fmt.Sprintf("%s: %v", e.Target, e.Err)
	switch {
	case e.Pages > 0:
		s += fmt.Sprintf(" (it has the log and %d of %d pages)", e.Pages, e.Planned)
	case e.LogStored:
		s += " (it has the log)"
	}
	return s
}

// Unwrap returns the failure.
func (e *TargetError) Unwrap() error { return e.Err }

// Error names every target and its failure.
func (e *SendError) Error() string {
	var list []string
	if e.Deadline {
		list = append(list, ErrDeadline.Error())
	}
	for i := range e.Failures {
		list = append(list, e.Failures[i].Error())
	}
	return strings.Join(list, "; ")
}

// Unwrap returns the failures.
func (e *SendError) Unwrap() []error {
	var list []error
	if e.Deadline {
		list = append(list, ErrDeadline)
	}
	for i := range e.Failures {
		list = append(list, &e.Failures[i])
	}
	return list
}

// Declined reports whether only the log is stored, by a receiver that does not want more.
func (e *SendError) Declined() bool {
	declined := false
	for _, f := range e.Failures {
		if f.Pages > 0 {
			return false
		}
		declined = declined || f.LogStored && errors.Is(f.Err, protocol.CodeDeclined)
	}
	return declined
}

// Hints returns the hints of the receivers and of the failures, each once.
func (e *SendError) Hints() []string {
	var hints []string
	add := func(h string) {
		if h != "" && !slices.Contains(hints, h) {
			hints = append(hints, h)
		}
	}
	for _, f := range e.Failures {
		if pe, ok := errors.AsType[*protocol.Error](f.Err); ok {
			add(pe.Hint)
		}
		var own interface {
			error
			Hints() []string
		}
		if errors.As(f.Err, &own) {
			for _, h := range own.Hints() {
				add(h)
			}
		}
	}
	return hints
}

// failure returns the error that names all targets that were tried.
func (j *job) failure(deadline bool) *SendError {
	e := &SendError{Sessions: j.attempt, Deadline: deadline}
	planned := j.meter.Progress().Planned
	for _, t := range j.targets {
		if t.err != nil {
			e.Failures = append(e.Failures, TargetError{
				Target: t.addr, LogStored: t.logStored, Pages: t.pages, Planned: planned, Err: t.err,
			})
		}
	}
	return e
}

// A depotError is what a depot of this process reports. No peer says it: the text names the path, and the server or the disk is that
// of the target.
type depotError struct{ err *protocol.Error }

// Error is that of the protocol, without the word that another side said it.
func (e *depotError) Error() string {
	own := *e.err
	own.Remote = false
	return own.Error()
}

func (e *depotError) Unwrap() error { return e.err }

// ofDepot returns an error of a session with t as people are to read it.
func (t *target) ofDepot(err error) error {
	if e, ok := err.(*protocol.Error); ok && e.Remote && t.depot { //nolint:errorlint // one that is wrapped says who was asked
		return &depotError{e}
	}
	return err
}
