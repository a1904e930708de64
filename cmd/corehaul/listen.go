package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/receiver/sshd"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// listener is an address of the server, with the function that serves it.
type listener struct {
	net.Listener
	scheme string // the scheme of the targets of senders
	serve  func(context.Context, net.Listener) error
	beside func(context.Context) // runs while the server runs; may be nil
}

// trust is what the listeners need to authenticate peers. A field without a listener is nil.
type trust struct {
	receiver *corehaultls.Receiver
	keys     *sshd.Keys
}

// trusted reads the files that authenticate peers.
func (c *serveConfig) trusted(log *slog.Logger) (*trust, problems) {
	var t trust
	var err error
	var found problems
	if len(c.tls) > 0 {
		t.receiver, err = corehaultls.LoadReceiver(c.ca)
		found.addErr("ca", err)
	}
	if len(c.ssh) > 0 {
		t.keys, err = sshd.LoadKeys(c.authorizedKeys, log)
		found.addErr("authorized_keys", err)
	}
	return &t, found
}

// listeners opens all listeners or none.
func (s *service) listeners(ctx context.Context) (all []listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				_ = l.Close() // nothing was accepted
			}
		}
	}()
	c := s.config
	overTLS := func(ctx context.Context, l net.Listener) error { return s.server.ServeTLS(ctx, l, s.tls) }
	if all, err = s.listen(ctx, all, c.tls, listener{scheme: "tls", serve: overTLS}); err != nil || len(c.ssh) == 0 {
		return all, err
	}
	hostKeys, err := loadHostKeys(s.dir, s.log)
	if err != nil {
		return all, err
	}
	s.log.Info("authorized keys", "file", c.authorizedKeys, "keys", s.trusted.keys.Len())
	overSSH := sshd.New(sshd.Config{Receiver: s.server, Keys: s.trusted.keys, HostKeys: hostKeys, Trees: s.files.Tree, Log: s.log, ClientIdle: c.stockIdle})
	return s.listen(ctx, all, c.ssh, listener{scheme: "ssh", serve: overSSH.Serve, beside: overSSH.Watch})
}

// listen opens a listener like kind on each address and appends them to all. It takes the sockets of systemd for addresses that have one.
func (s *service) listen(ctx context.Context, all []listener, addrs []string, kind listener) ([]listener, error) {
	for _, addr := range addrs {
		l, err := s.sockets.take(kind.scheme, addr), error(nil)
		if l == nil {
			var lc net.ListenConfig
			l, err = lc.Listen(ctx, "tcp", addr)
		}
		if err != nil {
			return all, fmt.Errorf("listen on %s: %w", addr, err)
		}
		kind.Listener = l
		all = append(all, kind)
		kind.beside = nil // once is enough
	}
	return all, nil
}

// loadHostKeys returns the SSH host keys in the data directory. The first start creates them.
func loadHostKeys(dir string, log *slog.Logger) ([]ssh.Signer, error) {
	if err := sshd.MakeHostKeys(dir); err != nil {
		return nil, err
	}
	keys, err := sshd.LoadHostKeys(dir)
	for _, key := range keys {
		log.Info("SSH host key", "type", key.PublicKey().Type(), "fingerprint", ssh.FingerprintSHA256(key.PublicKey()))
	}
	return keys, err
}

// ready prints that the server listens, and where.
func (a *app) ready(listeners []listener, socket string) error {
	var where []string
	if len(listeners) == 0 {
		where = append(where, "unix://"+socket)
	}
	for _, l := range listeners {
		where = append(where, l.scheme+"://"+l.Addr().String())
	}
	line := strings.Join(where, " ")
	if _, err := fmt.Fprintln(a.stdio.Out, "ready "+line); err != nil {
		return err
	}
	return tellSystemd(daemon.SdNotifyReady, statusLine("receiving dumps on "+line))
}

// runServer serves until ctx is done or a part fails, and then waits until all sessions have ended.
func runServer(ctx context.Context, listeners []listener, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	run := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				cancel(err)
			}
		})
	}
	for _, part := range parts {
		run(func() error { return part(ctx) })
	}
	for _, l := range listeners {
		run(func() error { return l.serve(ctx, l.Listener) })
		if l.beside != nil {
			wg.Go(func() { l.beside(ctx) })
		}
	}
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}
