package sender

import (
	"context"
	"fmt"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// read reads messages until the connection ends. It handles ACK and WAIT and passes the others to s.msgs.
func (s *session) read(cancel context.CancelCauseFunc) {
	defer close(s.over)
	for {
		m, err := s.conn.Read()
		if err != nil {
			s.readErr = err
			s.flow.fail(err)
			cancel(fmt.Errorf("connection to the receiver: %w", err))
			return
		}
		s.stall.restart()
		switch m := m.(type) {
		case *protocol.Ack:
			s.flow.ack(m)
			continue
		case *protocol.Wait:
			s.meter.waiting(m)
			s.queue.waiting(m)
			s.noteWait(m)
			continue
		case *protocol.Sealed:
			s.flow.fail(errSealed)
		}
		s.queue.answered()
		s.msgs <- m // never blocks: each of the other messages comes once
	}
}

// noteWait logs a WAIT that differs from the last one. Receivers repeat WAIT to show that they are alive.
func (s *session) noteWait(w *protocol.Wait) {
	if *w == s.waited {
		return
	}
	s.waited = *w
	switch {
	case w.Place > 0 && w.Of > 0:
		s.log("waiting, place %d of %d%s", w.Place, w.Of, because(w.Reason))
	case w.Place > 0:
		s.log("waiting, place %d%s", w.Place, because(w.Reason))
	default:
		s.log("waiting%s", because(w.Reason))
	}
}

// await returns the next message that is not ACK or WAIT. The receiver has to send it within limit.
func (s *session) await(ctx context.Context, stop <-chan struct{}, limit func() time.Duration) (protocol.Message, error) {
	defer s.stall.start(limit)()
	select {
	case m := <-s.msgs:
		return m, nil
	default:
	}
	select {
	case m := <-s.msgs:
		return m, nil
	case <-stop:
		return nil, errDeadline
	case <-ctx.Done():
		// A last message may have come together with the end.
		select {
		case m := <-s.msgs:
			return m, nil
		default:
		}
		return nil, context.Cause(ctx)
	}
}

// expect awaits a message of type M. SEALED may come in its place and ends the session without an error.
func expect[M protocol.Message](ctx context.Context, s *session, limit func() time.Duration) (m M, sealed *protocol.Sealed, err error) {
	got, err := s.await(ctx, s.stop.Done(), limit)
	if err != nil {
		return m, nil, err
	}
	switch got := got.(type) {
	case M:
		return got, nil, nil
	case *protocol.Sealed:
		return m, got, nil
	}
	return m, nil, protocol.Errorf(protocol.CodeOutOfOrder, "%s instead of %s", got.Type(), m.Type())
}
