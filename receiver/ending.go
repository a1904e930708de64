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

// letGo gives back all that the session holds, once the dump is closed.
func (ss *session) letGo() {
	ss.settle()
	if ss.claim != nil && ss.srv.release(ss.ref, ss.claim) && (ss.Outcome == nil || ss.contested) {
		ss.srv.expiry.set(ss.ref, time.Now().Add(ss.cfg.ResumeGrace))
	}
	ss.leaveQueue()
	ss.unhold(ss.held)
}

// tell says the last word to the log and to the peer, and closes the connection.
func (ss *session) tell(cause error) {
	var last error
	var p dumpdir.Progress
	if ss.W != nil {
		p = ss.W.Progress()
	}
	ss.count(cause)
	switch {
	case ss.Outcome != nil && (cause == nil || isGone(cause)):
		// A sender that went away once the dump was sealed has lost nothing.
		ss.log.Info("session ended", "state", ss.Outcome.State, "pages", ss.Outcome.Progress.Present,
			"missing", ss.Outcome.Progress.Missing(), "bytes", ss.Outcome.Progress.Bytes, "took", time.Since(ss.Began).Round(time.Millisecond))
	case isGone(cause):
		ss.log.Warn("session broke off", "pages", p.Present, "of", p.Planned, "error", cause)
		last = io.EOF // nobody is there to be told
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

// level is how much an operator has to know of a session that ended early.
func level(code protocol.Code) slog.Level {
	switch code {
	case protocol.CodeShuttingDown, protocol.CodeSuperseded, protocol.CodeBusy:
		return slog.LevelInfo
	case protocol.CodeStorage, protocol.CodeNoSpace, protocol.CodeInternal:
		return slog.LevelError
	}
	return slog.LevelWarn
}

// isGone reports whether err is the connection's end, after which there is nobody to tell.
func isGone(err error) bool {
	var op *net.OpError
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.As(err, &op) && !op.Timeout()
}
