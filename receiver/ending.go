package receiver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
)

// letGo releases all that the session holds. It is called after the dump was closed.
func (ss *session) letGo() {
	ss.settle()
	var had dumpdir.Progress
	if ss.W != nil {
		had = ss.W.Progress()
	}
	if ss.claim != nil {
		ss.srv.release(ss.ref, ss.claim, func() {
			switch {
			case ss.Outcome == nil && ss.Dismissed:
				ss.srv.expiry.set(ss.ref, absent(retrySeal, had))
			case ss.Outcome == nil || ss.contested:
				ss.srv.expiry.set(ss.ref, absent(ss.cfg.ResumeGrace, had))
			}
		})
	}
	ss.leaveQueue()
	ss.unhold(ss.held)
}

// tell logs the end of the session, sends the error to the peer, and closes the connection.
func (ss *session) tell(cause error) {
	var last error
	var p dumpdir.Progress
	if ss.W != nil {
		p = ss.W.Progress()
	}
	ss.count(cause)
	switch {
	case ss.Outcome != nil && (cause == nil || isGone(cause)):
		// The dump is sealed, so it does not matter that the sender is gone.
		ss.log.Info("session ended", "state", ss.Outcome.State, "pages", ss.Outcome.Progress.Present,
			"missing", ss.Outcome.Progress.Missing(), "bytes", ss.Outcome.Progress.Bytes, "took", time.Since(ss.Began).Round(time.Millisecond))
	case ss.Dismissed && !errors.Is(cause, errSuperseded) && !errors.Is(cause, errShutdown):
		ss.log.Error("the dump is complete and durable, but not sealed; trying again", "after", retrySeal, "error", cause)
	case isGone(cause):
		ss.log.Warn("session broke off", "pages", p.Present, "of", p.Planned, "error", cause)
		last = io.EOF // there is no peer to send it to
	default:
		refusal := wireError(cause)
		say := func() {
			ss.log.Log(context.Background(), level(refusal.Code), "session ended early", "code", string(refusal.Code),
				"pages", p.Present, "of", p.Planned, "error", cause)
		}
		if refusal.Code == protocol.CodeNoSpace { // a host without room can come back as often as it likes
			ss.srv.refusals.Do(say)
		} else {
			say()
		}
		last = refusal
	}
	if err := ss.Shutdown(last); err != nil && cause == nil {
		ss.log.Debug("closing the connection", "error", err)
	}
}

// level is the log level of a session that ended early.
func level(code protocol.Code) slog.Level {
	switch code {
	case protocol.CodeShuttingDown, protocol.CodeSuperseded, protocol.CodeBusy:
		return slog.LevelInfo
	case protocol.CodeStorage, protocol.CodeNoSpace, protocol.CodeInternal:
		return slog.LevelError
	}
	return slog.LevelWarn
}

// isGone reports whether err means that the connection has ended.
func isGone(err error) bool {
	var op *net.OpError
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.As(err, &op) && !op.Timeout()
}
