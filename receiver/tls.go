package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	corehaultls "github.com/corehaul/corehaul/tls"
)

// ServeTLS accepts connections from l until ctx is done, and closes l. Run waits for its sessions. cfg must require client
// certificates, as corehaultls.ServerConfig does.
func (s *Server) ServeTLS(ctx context.Context, l net.Listener, cfg *tls.Config) error {
	if cfg.ClientAuth != tls.RequireAndVerifyClientCert {
		_ = l.Close() // nothing was accepted
		return errors.New("receiver: TLS configuration does not demand client certificates")
	}
	return s.Serve(ctx, l, func(ctx context.Context, conn net.Conn) { s.serveTLS(ctx, conn, cfg) })
}

func (s *Server) serveTLS(ctx context.Context, raw net.Conn, cfg *tls.Config) {
	addr := raw.RemoteAddr().String()
	conn := tls.Server(raw, cfg)
	var host string
	known := s.Handshake(ctx, addr, "tls", func(ctx context.Context) (err error) {
		host, err = s.handshake(ctx, conn)
		return err
	})
	if !known {
		_ = conn.Close() // the peer is unknown or gone
		return
	}
	_ = s.HandleConn(ctx, conn, Peer{Host: host, Addr: addr, Transport: "tls"}) // it is in the log
}

// handshake authenticates the peer within handshakeTimeout.
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
