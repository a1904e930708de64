package receiver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// letGo gives back all that the session holds. What arrived is made durable first.
func (ss *session) letGo(cause error) {
	sealed := ss.result != nil
	if ss.w != nil {
		if !sealed && !errors.Is(cause, protocol.CodeSuperseded) {
			if _, err := ss.w.Commit(); err != nil {
				ss.log.Debug("last commit failed", "error", err)
			}
		}
		ss.progress = ss.w.Progress()
		if err := ss.w.Close(); err != nil {
			ss.log.Error("cannot close the dump", "error", err)
		}
	}
	if ss.claim != nil && ss.srv.release(ss.ref, ss.claim) && (!sealed || ss.contested) {
		ss.srv.expiry.set(ss.ref, time.Now().Add(ss.cfg.ResumeGrace))
	}
	if ss.ticket != nil {
		ss.ticket.Leave()
	}
	ss.srv.hello.give(ss.held)
	ss.held, ss.notes, ss.ram = 0, nil, nil
}

// lingerTime is how long the last word may take to reach the peer.
const lingerTime = 2 * time.Second

// tell says the last word to the log and to the peer, and closes the connection.
func (ss *session) tell(cause error) {
	ss.in.stop()
	var last error
	ss.count(cause)
	switch {
	case ss.result != nil && (cause == nil || isGone(cause)):
		// A sender that went away once the dump was sealed has lost nothing.
		ss.log.Info("session ended", "state", ss.result.State, "pages", ss.result.Progress.Present,
			"missing", ss.result.Progress.Missing(), "bytes", ss.result.Progress.Bytes, "took", time.Since(ss.begin).Round(time.Millisecond))
	case isGone(cause):
		ss.log.Warn("session broke off", "pages", ss.progress.Present, "of", ss.progress.Planned, "error", cause)
		last = io.EOF // nobody is there to be told
	default:
		refusal := wireError(cause)
		ss.log.Log(context.Background(), level(refusal.Code), "session ended early", "code", string(refusal.Code),
			"pages", ss.progress.Present, "of", ss.progress.Planned, "error", cause)
		last = refusal
	}
	if err := ss.wire.Shutdown(last, lingerTime); err != nil && cause == nil {
		ss.log.Debug("closing the connection", "error", err)
	}
	<-ss.in.ended
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
