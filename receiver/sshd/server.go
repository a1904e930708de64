package sshd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/receiver/kdumpclients"
)

const (
	// handshakeTimeout bounds a connection until the peer is authenticated: some ten round trips on the
	// slowest line.
	handshakeTimeout = 30 * time.Second
	// maxAuthTries is how many wrong keys a client may show, because agents have several.
	maxAuthTries = 6
	// maxHostConnections bounds the connections of one host. A client has one at a time.
	maxHostConnections = 64
	// maxHostChannels bounds the open channels of one host, over all its connections. Each can take the
	// 2 MiB of a channel's window.
	maxHostChannels = 32
	// DefaultIdle is how long a connection may have no channel.
	DefaultIdle = time.Minute
)

// Config configures a Server.
type Config struct {
	// Receiver runs the sessions. Its limit of connections includes SSH.
	Receiver *receiver.Server
	// Keys has the authorized keys.
	Keys *Keys
	// HostKeys are the server's host keys.
	HostKeys []ssh.Signer
	// Trees opens the files of a host, for commands, scp and SFTP of stock kdump clients. nil refuses
	// them.
	Trees func(kdumpclients.Peer) (kdumpclients.Tree, error)
	// Log gets a line for every refusal. It may be nil.
	Log *slog.Logger
	// Idle is how long a connection may have no channel, and a channel no purpose. 0 means DefaultIdle.
	Idle time.Duration
	// ClientIdle is how long a stock client may send nothing when it is its turn, or take no data. 0 means DefaultClientIdle.
	ClientIdle time.Duration
}

// Server is an SSH server.
type Server struct {
	cfg Config

	connections, channels *admission.HostLimit // for open connections and channels

	mu   sync.Mutex
	open map[*connection]struct{}
}

// New returns a Server.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Idle == 0 {
		cfg.Idle = DefaultIdle
	}
	if cfg.ClientIdle == 0 {
		cfg.ClientIdle = DefaultClientIdle
	}
	return &Server{
		cfg: cfg, open: map[*connection]struct{}{},
		connections: admission.NewHostLimit(maxHostConnections), channels: admission.NewHostLimit(maxHostChannels),
	}
}

// Serve accepts connections from l until ctx is done, and closes l. The receiver's Run waits for sessions.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	return s.cfg.Receiver.Serve(ctx, l, s.handle)
}

// Watch ends the connections of keys that were removed from the authorized keys. It returns when ctx is done.
func (s *Server) Watch(ctx context.Context) { s.cfg.Keys.Watch(ctx, s.endRevoked) }

// handle serves one connection until its end.
func (s *Server) handle(ctx context.Context, raw net.Conn) {
	defer func() { _ = raw.Close() }() // the connection is over
	var c *connection
	known := s.cfg.Receiver.Handshake(ctx, raw.RemoteAddr().String(), Transport, func(ctx context.Context) (err error) {
		c, err = s.handshake(ctx, raw)
		return err
	})
	if !known {
		return
	}
	if s.connections.Acquire(c.entry.Host) {
		defer s.connections.Release(c.entry.Host)
	} else {
		c.refuse("refused a connection", protocol.CodeBusy, "limit", maxHostConnections)
		_ = c.ssh.Close() // run notices
	}
	s.enter(c)
	defer s.exit(c)
	if !c.entry.grants(s.cfg.Keys.Find(c.entry.Key)) {
		c.revoke() // removed since the handshake; run notices
	}
	c.log.Info("connected", "client", string(c.ssh.ClientVersion()), "user", clip(c.ssh.User()))
	c.run(ctx)
}

// Transport is the name of this transport in manifests, logs and status.
const Transport = "ssh"

// entryKey is the key of the Entry in the Permissions of a connection.
type entryKey struct{}

// handshake authenticates the peer within handshakeTimeout.
func (s *Server) handshake(ctx context.Context, raw net.Conn) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	cfg, err := s.serverConfig()
	if err != nil {
		return nil, err
	}
	conn, chans, reqs, err := ssh.NewServerConn(raw, cfg)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // the end of ctx closed the connection
	}
	if err != nil {
		return nil, fmt.Errorf("SSH handshake: %w", explain(err))
	}
	entry, ok := conn.Permissions.ExtraData[entryKey{}].(*Entry)
	if !ok {
		return nil, errors.Join(errors.New("SSH handshake: no host is known for the key"), conn.Close())
	}
	log := s.cfg.Log.With("peer", raw.RemoteAddr().String(), "host", entry.Host, "transport", Transport, "key", entry.Fingerprint())
	return &connection{srv: s, ssh: conn, chans: chans, reqs: reqs, entry: entry, log: log, ended: make(chan struct{})}, nil
}

// serverConfig returns the configuration of a new connection. The offered algorithms depend on the authorized keys.
func (s *Server) serverConfig() (*ssh.ServerConfig, error) {
	told := false
	cfg := &ssh.ServerConfig{
		MaxAuthTries: maxAuthTries, ServerVersion: "SSH-2.0-corehaul",
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			entry := s.cfg.Keys.Find(key)
			if entry == nil {
				err := fmt.Errorf("key %s: %w", ssh.FingerprintSHA256(key), errNotListed)
				if told { // log only once: agents show many keys
					return nil, err
				}
				told = true
				return nil, &ssh.BannerError{Err: err, Message: fmt.Sprintf("corehaul: key %s is not enrolled; %s\n", ssh.FingerprintSHA256(key), enrolHint)}
			}
			return &ssh.Permissions{ExtraData: map[any]any{entryKey{}: entry}}, nil
		},
		VerifiedPublicKeyCallback: verified,
		// Shows a hint to people and ssh-copy-id without a key. No answer lets them in.
		KeyboardInteractiveCallback: func(_ ssh.ConnMetadata, tell ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			if told {
				return nil, errNoKey
			}
			told = true
			_, err := tell("", "corehaul: "+enrolHint, nil, nil)
			return nil, cmp.Or(err, errNoKey)
		},
	}
	legacy := s.cfg.Keys.Legacy()
	setAlgorithms(cfg, legacy)
	for _, key := range s.cfg.HostKeys {
		signer, err := asOffered(key, legacy)
		if err != nil {
			return nil, err
		}
		cfg.AddHostKey(signer)
	}
	return cfg, nil
}

// verified decides about a peer that has proven its key, because only now the used algorithms are known.
func verified(conn ssh.ConnMetadata, key ssh.PublicKey, p *ssh.Permissions, signature string) (*ssh.Permissions, error) {
	entry, ok := p.ExtraData[entryKey{}].(*Entry)
	used, knows := conn.(ssh.AlgorithmsConnMetadata)
	if !ok || !knows {
		return nil, errNotListed
	}
	if err := entry.checkAlgorithms(used.Algorithms(), signature); err != nil {
		return nil, fmt.Errorf("host %s, key %s: %w", entry.Host, ssh.FingerprintSHA256(key), err)
	}
	return p, nil
}

// errNoKey means that the peer has shown no key.
var errNoKey = errors.New("only public keys are accepted")

// explain removes errors without information: every client first asks which methods it may try.
func explain(err error) error {
	var auth *ssh.ServerAuthError
	if !errors.As(err, &auth) {
		return err
	}
	var texts []string
	for _, e := range auth.Errors {
		if e != nil && !errors.Is(e, ssh.ErrNoAuth) && !errors.Is(e, errNoKey) {
			texts = append(texts, e.Error())
		}
	}
	if len(texts) == 0 {
		return errors.New("the client offered no key")
	}
	return errors.New(strings.Join(texts, "; "))
}

// errRevoked ends the sessions of a key that was removed from the authorized keys.
var errRevoked = errors.New("its key was removed from the authorized keys")

// endRevoked ends the connections whose keys are not authorized any more.
func (s *Server) endRevoked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if !c.entry.grants(s.cfg.Keys.Find(c.entry.Key)) {
			c.revoke()
		}
	}
}

// enter adds an authenticated connection.
func (s *Server) enter(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = struct{}{}
}

func (s *Server) exit(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}
