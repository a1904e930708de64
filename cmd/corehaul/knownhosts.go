package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/receiver/sshd"
)

func newKnownHosts(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "known-hosts HOST[:PORT]...", GroupID: groupServer, Args: cobra.MinimumNArgs(1),
		Short: "Print the known_hosts lines of the SSH host keys",
		Long: `Print the lines of a known_hosts file by which SSH clients know this server: one for
each of its host keys, with all the names and addresses given, which are those that
clients are told to connect to. The keys are in the data directory once "serve --ssh"
was started there; run it as the user of the service or as root.`,
		RunE: func(_ *cobra.Command, args []string) error { return a.knownHosts(args) },
	}
	a.dataFlag(cmd)
	return cmd
}

func (a *app) knownHosts(names []string) error {
	keys, err := sshd.LoadHostKeys(a.data)
	if errors.Is(err, fs.ErrNotExist) {
		return cli.WithHint(err, "'corehaul serve --ssh' makes the host keys when it is first started; --data DIR says where")
	}
	if err != nil {
		return denied(err)
	}
	for _, key := range keys {
		if _, err := fmt.Fprintln(a.stdio.Out, knownhosts.Line(names, key.PublicKey())); err != nil {
			return err
		}
	}
	return nil
}
