package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/corehaul/corehaul/sender/depot"
	"github.com/corehaul/corehaul/sender/nfsfs"
	"github.com/corehaul/corehaul/sender/nfsfs/nfs3"
)

// DialNFS returns a Dialer for targets of the form nfs3.Form. The connection leads to a depot in this process, which writes the
// dump into the directory of the target. tool names this program in the manifest. The connections are made with c.
func DialNFS(tool string, c Connector) Dialer {
	return dialNFS(tool, func(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
		return c.connect(ctx, d, network, addr)
	})
}

// dialNFS is DialNFS with nfs3.Config.Dial.
func dialNFS(tool string, dial Connector) Dialer {
	return func(ctx context.Context, target string) (net.Conn, error) {
		u, err := url.Parse(target)
		if err != nil {
			return nil, err
		}
		server, dir, err := nfs3.ParseURL(u)
		if err != nil {
			return nil, &handshakeError{fmt.Errorf("target %q: %w", target, err)}
		}
		server.Dial = dial
		files, err := nfsfs.Mount(ctx, server, dir, owner())
		if err != nil {
			return nil, mountError(err)
		}
		conf := depot.Config{
			FS: files, Root: files.Root(), Host: addressName(files.LocalAddr()), Peer: files.LocalAddr(), Transport: "nfs", Tool: tool,
			Note: fmt.Sprintf("the dump is written over NFS into %s", dir), Lost: nfsfs.Lost,
		}
		return startDepot(ctx, conf, line{cut: files.Close, close: files.Close}), nil
	}
}

// mountError returns a *handshakeError for what another try cannot change, and a *refusedError for an export that the server does not
// have, or not for this client.
func mountError(err error) error {
	if refusal, ok := errors.AsType[nfs3.Refusal](err); ok && refusal.ForGood() {
		return &handshakeError{err}
	}
	if mount, ok := errors.AsType[*nfs3.MountError](err); ok && mount.NoExport() {
		return &refusedError{err}
	}
	return err
}
