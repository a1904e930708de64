package sshdial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// ErrNoSubsystem is the cause of a *RefusedError for a server without the subsystem.
var ErrNoSubsystem = errors.New("no such subsystem")

// Session is a login. The caller has to close it.
type Session struct {
	conn ssh.Conn
	line *line
	user string
	addr string
}

// Close closes the connection and all its channels.
func (s *Session) Close() error { return s.line.Close() }

// Broken reports whether the connection has ended, for any reason.
func (s *Session) Broken() bool { return s.line.because(nil) != nil }

// Times of KeepAlive.
const (
	aliveEvery = 10 * time.Second
	aliveLimit = 45 * time.Second
)

// KeepAlive sends keepalive requests until ctx is done, and ends the session if the server does not answer. It is for
// protocols without heartbeats.
func (s *Session) KeepAlive(ctx context.Context) {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		timer := time.AfterFunc(aliveLimit, s.line.expire)
		_, _, err := s.conn.SendRequest("keepalive@openssh.com", true, nil)
		timer.Stop()
		if err != nil {
			return
		}
	}
}

// Subsystem opens a channel to a subsystem of the server; its Close ends the session. The end of ctx ends the attempt
// and the session.
func (s *Session) Subsystem(ctx context.Context, name string) (net.Conn, error) {
	release := context.AfterFunc(ctx, func() { _ = s.line.Close() })
	defer release()
	ch, err := s.open(name)
	if err == nil {
		return newConn(ch, s.line), nil
	}
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("ssh subsystem %s at %s: %w", name, s.addr, context.Cause(ctx))
	case errors.Is(err, ErrNoSubsystem):
		return nil, refused(err, fmt.Sprintf("%s has no subsystem %s for %s", s.addr, name, quote(s.user)), "",
			"name a corehaul receiver (corehaul serve --ssh), or an SSH server with SFTP")
	case broken(err):
		return nil, fmt.Errorf("ssh subsystem %s at %s: %w", name, s.addr, err)
	}
	return nil, refused(err, fmt.Sprintf("%s refuses the subsystem %s", s.addr, name), err.Error(), "")
}

// open opens a session channel with a subsystem.
func (s *Session) open(name string) (ssh.Channel, error) {
	ch, reqs, err := s.conn.OpenChannel("session", nil)
	if err != nil {
		return nil, s.line.because(err)
	}
	go ssh.DiscardRequests(reqs)
	ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{name}))
	switch {
	case err != nil:
		err = s.line.because(err)
	case !ok:
		err = ErrNoSubsystem
	default:
		return ch, nil
	}
	if cerr := ch.Close(); cerr != nil && !errors.Is(cerr, io.EOF) { // EOF: the server closed it first
		err = errors.Join(err, cerr)
	}
	return nil, err
}
