package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/hostname"
)

func newReceive(a *app) *cobra.Command {
	var socket, host string
	var stdio bool
	cmd := &cobra.Command{
		Use: "receive --stdio --host NAME", GroupID: groupServer, Args: cobra.NoArgs,
		Short: "Hand a connection of OpenSSH's server to the running server",
		Long: `Hand over standard input and output, the connection of one sender, to the running
server of the data directory through its local socket. Use it if senders can only
reach OpenSSH's server. "serve --ssh" does not need it. In sshd_config, set

    Subsystem corehaul /usr/bin/corehaul receive --stdio

and in ~/.ssh/authorized_keys of the user of the server, one line for each host:

    restrict,command="/usr/bin/corehaul receive --stdio --host web-17" ssh-ed25519 AAAA...

The key's command overrides the subsystem's, so a key can only send dumps of its host.
The server trusts --host, because only its user and root can open the socket.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case !stdio:
				return cli.Usagef("--stdio is required: the connection comes over standard input and output")
			case host == "":
				return cli.WithHint(cli.Usagef("--host NAME is required: it names the sending host"),
					`give the key a command="corehaul receive --stdio --host NAME" in authorized_keys`)
			}
			if err := hostname.Check(host); err != nil {
				return cli.Usage(err)
			}
			path, err := a.socketPath(socket)
			if err != nil {
				return err
			}
			return a.receive(cmd.Context(), path, host)
		},
	}
	a.dataFlag(cmd)
	cmd.Flags().BoolVar(&stdio, "stdio", false, "the connection is standard input and output")
	cmd.Flags().StringVar(&host, "host", "", "name of the host whose connection it is")
	cmd.Flags().StringVar(&socket, "socket", "", "socket of the server (default "+socketName+" in the data directory)")
	return cmd
}

// receive copies both ways until the server has closed its end.
func (a *app) receive(ctx context.Context, socket, host string) error {
	if cli.IsTerminal(a.stdio.In) {
		return cli.Usagef("standard input is a terminal, not the connection of a sender")
	}
	conn, in, err := handOver(ctx, socket, host, sshPeer(os.Getenv("SSH_CONNECTION")))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	go func() {
		// receive does not wait for this goroutine: a read from standard input ends with the process. The server sees
		// the end of input and sends its last message.
		_, _ = io.Copy(conn, a.stdio.In)
		_ = conn.CloseWrite()
	}()
	_, err = io.Copy(a.stdio.Out, in)
	_ = conn.Close() // the server has closed its end
	switch {
	case ctx.Err() != nil: // the cancelled context closed the connection
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("connection of %s: %w", host, err)
	}
	return nil
}

// sshPeer returns the client's address of sshd's SSH_CONNECTION: "ADDRESS PORT ADDRESS PORT", the client's first.
func sshPeer(connection string) string {
	if f := strings.Fields(connection); len(f) == 4 {
		return net.JoinHostPort(f[0], f[1])
	}
	return "local"
}
