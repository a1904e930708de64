package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/receiver/kdumpclients"
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
	tls *tls.Config
	ssh *sshd.Keys
}

// trusted reads the files that authenticate peers.
func (f *serveFlags) trusted(log *slog.Logger) (t trust, err error) {
	if len(f.tls) > 0 {
		if t.tls, err = corehaultls.ServerConfig(f.ca); err != nil {
			return t, err
		}
	}
	if len(f.ssh) > 0 {
		t.ssh, err = sshd.LoadKeys(f.authorizedKeys, log)
	}
	return t, err
}

// listeners opens all listeners or none.
func listeners(ctx context.Context, f *serveFlags, t trust, server *receiver.Server, files *kdumpclients.Service, log *slog.Logger) (all []listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				_ = l.Close() // nothing was accepted
			}
		}
	}()
	overTLS := func(ctx context.Context, l net.Listener) error { return server.ServeTLS(ctx, l, t.tls) }
	if all, err = listen(ctx, all, f.tls, listener{scheme: "tls", serve: overTLS}); err != nil || len(f.ssh) == 0 {
		return all, err
	}
	hostKeys, err := loadHostKeys(f.dir, log)
	if err != nil {
		return all, err
	}
	log.Info("authorized keys", "file", f.authorizedKeys, "keys", t.ssh.Len())
	overSSH := sshd.New(sshd.Config{Receiver: server, Keys: t.ssh, HostKeys: hostKeys, Trees: files.Tree, Log: log, ClientIdle: f.stockIdle})
	return listen(ctx, all, f.ssh, listener{scheme: "ssh", serve: overSSH.Serve, beside: overSSH.Watch})
}

// listen opens a listener like kind on each address and appends them to all.
func listen(ctx context.Context, all []listener, addrs []string, kind listener) ([]listener, error) {
	for _, addr := range addrs {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", addr)
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
	line := "ready"
	if len(listeners) == 0 {
		line += " unix://" + socket
	}
	for _, l := range listeners {
		line += " " + l.scheme + "://" + l.Addr().String()
	}
	if _, err := fmt.Fprintln(a.stdio.Out, line); err != nil {
		return err
	}
	return notifySystemd()
}

// notifySystemd tells systemd that a service of Type=notify is ready (sd_notify(3)).
func notifySystemd() error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	if name, ok := strings.CutPrefix(socket, "@"); ok {
		socket = "\x00" + name
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	_, err = conn.Write([]byte("READY=1"))
	return errors.Join(err, conn.Close())
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
