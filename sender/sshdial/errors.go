package sshdial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/internal/printable"
)

// RefusedError is an answer that another try will not change: a host with another key, a
// login that is refused, a server without what is needed.
type RefusedError struct {
	Text string
	Hint string
	Err  error
}

// Error tells it in one line.
func (e *RefusedError) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }

// Hints tells what to do next.
func (e *RefusedError) Hints() []string {
	if e.Hint == "" {
		return nil
	}
	return []string{e.Hint}
}

func refused(err error, text, detail, hint string) error {
	if detail != "" {
		text += ": " + clean(detail)
	}
	return &RefusedError{Text: text, Hint: hint, Err: err}
}

// Reasons of RFC 4253, section 11.1, for which a server hangs up and may be well again later.
const (
	connectionLost     = 10
	byApplication      = 11
	tooManyConnections = 12
)

// broken reports whether err is of the line or the server's state rather than an answer.
func broken(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) {
		return true
	}
	if e, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return e.Reason == ssh.ResourceShortage || e.Reason == ssh.ConnectionFailed
	}
	// The type of the message is not exported.
	_, after, ok := strings.Cut(err.Error(), "ssh: disconnect, reason ")
	number, _, _ := strings.Cut(after, ":")
	reason, nerr := strconv.Atoi(number)
	return ok && nerr == nil && reason >= connectionLost && reason <= tooManyConnections
}

// maxQuoted bounds what is repeated of a server's words, in bytes.
const maxQuoted = 300

// clean makes a server's words fit to be printed in a line.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if printable.Rune(r) {
			return r
		}
		return ' '
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxQuoted {
		s = strings.ToValidUTF8(s[:maxQuoted], "") + "..."
	}
	return s
}

func quote(s string) string { return fmt.Sprintf("%q", s) }
