package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"

	"github.com/pkg/sftp"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender/depot"
	"github.com/corehaul/corehaul/sender/sftpfs"
	"github.com/corehaul/corehaul/sender/sshdial"
)

// Subsystems of SSH: that of a receiver, and the one of servers without a receiver.
const (
	subsystem     = protocol.Subsystem
	sftpSubsystem = "sftp"
)

// defaultRoot is the directory of dumps over SFTP if the target names none. It is relative to the login directory.
const defaultRoot = "corehaul"

// DialSSH returns a Dialer for ssh://USER@HOST[:PORT][/PATH] targets. If the server has no receiver, the connection leads
// to a depot in this process, which writes the dump into PATH over SFTP. tool names this program in the manifest.
func DialSSH(client *sshdial.Client, tool string) Dialer {
	return func(ctx context.Context, target string) (net.Conn, error) {
		u, err := url.Parse(target)
		if err != nil {
			return nil, err
		}
		conn, err := dialSSH(ctx, client, u, tool)
		return conn, sshError(err)
	}
}

// sshError tells refusals from servers that are out of reach.
func sshError(err error) error {
	_, refused := errors.AsType[*sshdial.RefusedError](err)
	switch {
	case !refused:
		return err
	case errors.Is(err, sshdial.ErrLogin):
		return &refusedError{err}
	}
	return &handshakeError{err}
}

func dialSSH(ctx context.Context, client *sshdial.Client, u *url.URL, tool string) (net.Conn, error) {
	session, err := client.Connect(ctx, u.User.Username(), sshdial.Addr(u))
	if err != nil {
		return nil, err
	}
	conn, err := session.Subsystem(ctx, subsystem)
	if errors.Is(err, sshdial.ErrNoSubsystem) {
		conn, err = openDepot(ctx, session, u, tool)
	}
	if err != nil {
		_ = session.Close() // the attempt has failed
		return nil, err
	}
	return conn, nil
}

// openDepot starts a depot that writes over SFTP.
func openDepot(ctx context.Context, session *sshdial.Session, u *url.URL, tool string) (net.Conn, error) {
	channel, err := session.Subsystem(ctx, sftpSubsystem)
	if errors.Is(err, sshdial.ErrNoSubsystem) {
		err = fmt.Errorf("no receiver there, and no SFTP: %w", err)
	}
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = session.Close() })()
	client, err := sftp.NewClientPipe(channel, channel, sftp.UseConcurrentWrites(true))
	if err != nil {
		return nil, fmt.Errorf("sftp: %w", err)
	}
	files, err := sftpfs.New(client, owner())
	if err != nil {
		_ = client.Close() // the attempt has failed
		if errors.Is(err, errors.ErrUnsupported) {
			err = &handshakeError{err}
		}
		return nil, err
	}
	local := channel.LocalAddr().String()
	conf := depot.Config{
		FS: files, Root: depotRoot(u), Host: addressName(local), Peer: local, Transport: "sftp", Tool: tool, Note: depotNote(u, files),
		Lost: func(err error) bool { return session.Broken() || sftpfs.Lost(err) },
	}
	return startDepot(ctx, conf, line{
		keepAlive: session.KeepAlive,
		cut:       func() { _ = session.Close() },
		close:     func() { _ = client.Close() }, // closes the session too
	}), nil
}

// depotNote says in the log where the dump goes.
func depotNote(u *url.URL, files *sftpfs.FS) string {
	note := fmt.Sprintf("no receiver there: the dump is written over SFTP into %s", depotRoot(u))
	if !files.Durable() {
		note += "; the server has no fsync@openssh.com, so a power cut there may take what it has"
	}
	return note
}

// depotRoot returns the directory of the store: absolute, or relative to the login directory.
func depotRoot(u *url.URL) string {
	p := path.Clean(u.Path)
	if p == "." || p == "/" {
		return defaultRoot
	}
	if home, ok := strings.CutPrefix(p, "/~/"); ok {
		return home
	}
	return p
}
