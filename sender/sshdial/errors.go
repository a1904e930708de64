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

// ErrLogin is the cause of a *RefusedError for a login that the server refuses. While it starts, the directory with the user's
// authorized keys may not be there yet.
var ErrLogin = errors.New("the login is refused")

// RefusedError is a failure that another try will not change: a host with another key, a refused login (see ErrLogin), a
// server without the needed subsystem.
type RefusedError struct {
	Text string
	Hint string
	Err  error
}

// Error returns the failure in one line.
func (e *RefusedError) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }

// Hints says what to do next.
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

// Reasons of a disconnect (RFC 4253, section 11.1) after which the server may work again later.
const (
	connectionLost     = 10
	byApplication      = 11
	tooManyConnections = 12
)

// broken reports whether err comes from the line or the server's state, and is not a refusal.
func broken(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) {
		return true
	}
	if e, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return e.Reason == ssh.ResourceShortage || e.Reason == ssh.ConnectionFailed
	}
	// The library does not export the type of a disconnect message.
	_, after, ok := strings.Cut(err.Error(), "ssh: disconnect, reason ")
	number, _, _ := strings.Cut(after, ":")
	reason, nerr := strconv.Atoi(number)
	return ok && nerr == nil && reason >= connectionLost && reason <= tooManyConnections
}

// maxQuoted bounds the quoted text of a server, in bytes.
const maxQuoted = 300

// clean makes a server's text printable in one line.
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
