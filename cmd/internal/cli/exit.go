package cli

import (
	"context"
	"errors"
	"fmt"
)

// ExitCode is the exit code of both programs. The list only grows.
type ExitCode int

// The exit codes. Scripts treat an unknown code as a failure.
const (
	ExitOK          ExitCode = 0   // complete
	ExitFailure     ExitCode = 1   // any failure without a code of its own
	ExitUsage       ExitCode = 2   // the command line, the configuration or a file that it names is wrong
	ExitPartial     ExitCode = 3   // stored, but partial; of a state: not all is well
	ExitDeclined    ExitCode = 4   // the receiver declined the dump; the log is stored
	ExitVerify      ExitCode = 5   // verification failed
	ExitInterrupted ExitCode = 130 // ended by SIGINT or SIGTERM
)

// exitHelp is the text that ends the help of every command: the one list of both programs. docs/operating.md has it too.
const exitHelp = `Exit codes:
  0    complete
  1    failure without a code of its own
  2    usage: the command line, the configuration or a file that it names is wrong
  3    stored, but partial; 'corehaul-send status': armed, but something is wrong
  4    declined by the receiver; the log is stored
  5    verification failed: a dump is damaged
  130  interrupted`

// ExitError is an error with an exit code. If Err is nil, the program prints nothing more.
type ExitError struct {
	Code ExitCode
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", int(e.Code))
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// Usage marks err as a mistake of the user: exit code 2.
func Usage(err error) error { return &ExitError{Code: ExitUsage, Err: err} }

// Usagef is Usage of a formatted error.
func Usagef(format string, args ...any) error { return Usage(fmt.Errorf(format, args...)) }

// Partial says that a dump is stored but partial: exit code 3. err may be nil.
func Partial(err error) error { return &ExitError{Code: ExitPartial, Err: err} }

// Declined says that the receiver declined the dump and stored the log: exit code 4.
func Declined(err error) error { return &ExitError{Code: ExitDeclined, Err: err} }

// VerifyFailed says that stored data differs from what was sent: exit code 5. err may be nil.
func VerifyFailed(err error) error { return &ExitError{Code: ExitVerify, Err: err} }

// CodeOf returns the exit code of err: 0 for nil, the code of an *ExitError in its chain, 130 for a cancelled
// context, else 1.
func CodeOf(err error) ExitCode {
	var exit *ExitError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &exit):
		return exit.Code
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	}
	return ExitFailure
}

// hintError adds next steps to an error.
type hintError struct {
	err   error
	hints []string
}

func (e *hintError) Error() string   { return e.err.Error() }
func (e *hintError) Unwrap() error   { return e.err }
func (e *hintError) Hints() []string { return e.hints }

// WithHint adds lines to err that say what to do next. Report prints them as "hint: ..." after the error. A nil err
// stays nil.
func WithHint(err error, hints ...string) error {
	if err == nil {
		return nil
	}
	return &hintError{err: err, hints: hints}
}

// Hints returns the hints in the chain of err, outermost first: those of WithHint, and of any error with a method
// Hints() []string.
func Hints(err error) []string {
	var hints []string
	for err != nil {
		var h interface {
			error
			Hints() []string
		}
		if !errors.As(err, &h) {
			break
		}
		for _, hint := range h.Hints() {
			if hint != "" {
				hints = append(hints, hint)
			}
		}
		err = errors.Unwrap(h)
	}
	return hints
}
