package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
)

// A Dialer connects to a target such as tls://host:port. The end of ctx ends the attempt and its handshake.
type Dialer func(ctx context.Context, target string) (net.Conn, error)

// A Connector makes a connection of TCP with the options of d. nil stands for d.DialContext.
type Connector func(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error)

// connect connects with c.
func (c Connector) connect(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	if c == nil {
		return d.DialContext(ctx, network, addr)
	}
	return c(ctx, d, network, addr)
}

// DialBy returns a Dialer that uses the dialer of the target's scheme.
func DialBy(schemes map[string]Dialer) Dialer {
	return func(ctx context.Context, target string) (net.Conn, error) {
		u, err := url.Parse(target)
		if err != nil {
			return nil, err
		}
		if dial := schemes[u.Scheme]; dial != nil {
			return dial(ctx, target)
		}
		return nil, &handshakeError{fmt.Errorf("target %q: nothing is set up for %s://: %w", target, u.Scheme, errors.ErrUnsupported)}
	}
}

// DialTLS returns a Dialer for tls:// targets, which connects with c. conf is cloned.
func DialTLS(conf *tls.Config, c Connector) Dialer {
	return func(ctx context.Context, target string) (net.Conn, error) {
		u, err := url.Parse(target)
		if err != nil {
			return nil, err
		}
		if u.Scheme != "tls" || u.Port() == "" {
			return nil, fmt.Errorf("target %q: write tls://HOST:PORT: %w", target, errors.ErrUnsupported)
		}
		nc, err := c.connect(ctx, &net.Dialer{}, "tcp", u.Host)
		if err != nil {
			return nil, err
		}
		conf := conf.Clone()
		if conf.ServerName == "" {
			conf.ServerName = u.Hostname()
		}
		tc := tls.Client(nc, conf)
		if err := tc.HandshakeContext(ctx); err != nil {
			_ = nc.Close()
			return nil, classifyHandshake(err)
		}
		return tc, nil
	}
}

// classifyHandshake returns a *handshakeError for a refusal, and another error for a broken connection.
func classifyHandshake(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op != "remote error" || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || isEOF(err) {
		return fmt.Errorf("tls handshake: %w", err)
	}
	return &handshakeError{fmt.Errorf("tls handshake: %w", err)}
}

// dialError means that the target could not be reached.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// refusedError is a refusal that may pass: of a login of SSH, or of a mount of NFS. The server may be starting still, without the
// directory that has the user's keys, or without its exports. But many tries in a short time look like an attack, and most refusals stay
// until somebody repairs something.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// handshakeError is a failure of TLS or SSH itself: a wrong pin or host key, or a refused identity.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

func isEOF(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
