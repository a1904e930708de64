package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/corehaul/corehaul/protocol"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// acceptPause is how long a listener rests after an error such as too many open files.
const acceptPause = 100 * time.Millisecond

// ServeTLS takes connections from l until ctx is done, and closes it. Its sessions
// end in their own time; Run waits for them. cfg must demand client certificates, as
// corehaultls.ServerConfig does.
func (s *Server) ServeTLS(ctx context.Context, l net.Listener, cfg *tls.Config) error {
	if cfg.ClientAuth != tls.RequireAndVerifyClientCert {
		_ = l.Close() // nothing was accepted
		return errors.New("receiver: TLS configuration does not demand client certificates")
	}
	s.sessions.Add(1) // Run must not stop waiting while a session may begin
	defer s.sessions.Done()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			s.admitTLS(ctx, conn, cfg)
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

// admitTLS runs a session in its own goroutine, or closes the connection when there
// are too many.
func (s *Server) admitTLS(ctx context.Context, conn net.Conn, cfg *tls.Config) {
	select {
	case s.conns <- struct{}{}:
	default:
		s.cfg.Log.Warn("too many connections; one was closed", "peer", conn.RemoteAddr().String(), "code", string(protocol.CodeBusy), "limit", cap(s.conns))
		s.refused(protocol.CodeBusy)
		_ = conn.Close() // nothing was said
		return
	}
	s.sessions.Go(func() {
		defer func() { <-s.conns }()
		s.serveTLS(ctx, conn, cfg)
	})
}

func (s *Server) serveTLS(ctx context.Context, raw net.Conn, cfg *tls.Config) {
	addr := raw.RemoteAddr().String()
	conn := tls.Server(raw, cfg)
	host, err := s.handshake(ctx, conn)
	if err != nil {
		_ = conn.Close() // the peer is unknown or gone
		code := protocol.CodeIdentity
		if errors.Is(err, context.DeadlineExceeded) {
			code = protocol.CodeTimeout
		}
		s.cfg.Log.Warn("refused a connection", "peer", addr, "transport", "tls", "code", string(code), "error", err)
		s.refused(code)
		return
	}
	_ = s.HandleConn(ctx, conn, Peer{Host: host, Addr: addr, Transport: "tls"}) // it is in the log
}

// handshake proves who the peer is. A peer that is slow at it is cut off.
func (s *Server) handshake(ctx context.Context, conn *tls.Conn) (host string, err error) {
	ctx, cancel := context.WithTimeout(ctx, min(s.cfg.IdleTimeout, handshakeTimeout))
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return "", fmt.Errorf("TLS handshake: %w", corehaultls.Explain(err))
	}
	state := conn.ConnectionState()
	return corehaultls.PeerName(&state)
}

// handshakeTimeout bounds a TLS handshake: a few round trips on the slowest line.
const handshakeTimeout = 20 * time.Second
