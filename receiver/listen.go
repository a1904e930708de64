package receiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// acceptPause is the pause of a listener after an error such as too many open files.
const acceptPause = 100 * time.Millisecond

// Serve accepts connections from l until ctx is done, and closes l. Each connection runs handle in its own goroutine, which
// closes the connection. Run waits for its end. Connections beyond the limit are closed at once.
func (s *Server) Serve(ctx context.Context, l net.Listener, handle func(context.Context, net.Conn)) error {
	s.sessions.Add(1) // Run must not stop waiting while a session may begin
	defer s.sessions.Done()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	loop := s.loops.enter(l)
	defer s.loops.exit(loop)
	for {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && loop.answer():
		case err == nil:
			s.Admit(conn.RemoteAddr().String(), func() { handle(ctx, conn) }, func() { _ = conn.Close() })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("receiver: %s: %w", l.Addr(), err)
		default:
			s.cfg.Log.Warn("cannot accept a connection", "address", l.Addr().String(), "error", err)
			sleep(ctx, acceptPause, true, nil)
		}
	}
}

// Admit runs handle for a connection from peer in its own goroutine. If there are too many connections, it calls turnAway.
func (s *Server) Admit(peer string, handle, turnAway func()) {
	select {
	case s.conns <- struct{}{}:
	default:
		s.refused(protocol.CodeBusy, func() {
			s.cfg.Log.Warn("too many connections; one was closed", "peer", peer, "code", string(protocol.CodeBusy), "limit", cap(s.conns))
		})
		turnAway()
		return
	}
	s.sessions.Go(func() {
		defer func() { <-s.conns }()
		handle()
	})
}
