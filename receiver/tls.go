package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	corehaultls "github.com/corehaul/corehaul/tls"
)

// TLSConfig is the TLS configuration of new connections. It can be replaced while the server runs. It is safe for concurrent use.
type TLSConfig struct{ now atomic.Pointer[tls.Config] }

// errNoClientAuth refuses a configuration that would let anybody in.
var errNoClientAuth = errors.New("receiver: TLS configuration does not demand client certificates")

// NewTLSConfig returns one that begins with cfg, as Set does.
func NewTLSConfig(cfg *tls.Config) (*TLSConfig, error) {
	c := new(TLSConfig)
	return c, c.Set(cfg)
}

// Set makes new handshakes use cfg, which must not change afterwards. It must require client certificates, as
// corehaultls.ServerConfig does; otherwise Set changes nothing. Connections that are open stay open.
func (c *TLSConfig) Set(cfg *tls.Config) error {
	if cfg.ClientAuth != tls.RequireAndVerifyClientCert {
		return errNoClientAuth
	}
	c.now.Store(cfg)
	return nil
}

// ServeTLS accepts connections from l until ctx is done, and closes l. Run waits for its sessions. cfg is one of NewTLSConfig.
func (s *Server) ServeTLS(ctx context.Context, l net.Listener, cfg *TLSConfig) error {
	return s.Serve(ctx, l, func(ctx context.Context, conn net.Conn) { s.serveTLS(ctx, conn, cfg.now.Load()) })
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
