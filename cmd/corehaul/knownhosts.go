package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/receiver/sshd"
	"github.com/corehaul/corehaul/storage/stores"
)

func newKnownHosts(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "known-hosts HOST[:PORT]...", GroupID: groupServer, Args: cobra.MinimumNArgs(1),
		Short: "Print the known_hosts lines of the SSH host keys",
		Long: `Print the known_hosts lines by which SSH clients recognise this server: one for each of
its host keys, with all given names and addresses. Give the names to which clients
connect. The first start of "serve --ssh" creates the keys in the data directory. Run
the command as the user of the service or as root.`,
		RunE: func(_ *cobra.Command, args []string) error { return a.knownHosts(args) },
	}
	a.dataFlag(cmd)
	a.jsonFlag(cmd)
	return cmd
}

// checkAddress refuses names that are no HOST or HOST:PORT. A pattern would match other servers.
func checkAddress(name string) error {
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"), "22"
	}
	_, notIP := netip.ParseAddr(host)
	n, notPort := strconv.ParseUint(port, 10, 16)
	strange := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`:,*?!|@#/[]"'`, r) }
	switch {
	case host == "" || notIP != nil && strings.ContainsFunc(host, strange):
		return fmt.Errorf("%q does not name a host", name)
	case notPort != nil || n == 0:
		return fmt.Errorf("%q: %q is not a port", name, port)
	}
	return nil
}

func (a *app) knownHosts(names []string) error {
	for _, name := range names {
		if err := checkAddress(name); err != nil {
			return cli.WithHint(cli.Usage(err), "name the server as its clients do, for example: collector.example.net:7422, 192.0.2.1, [2001:db8::1]:7422")
		}
	}
	dir, err := stores.Dir(a.data)
	if err != nil {
		return err
	}
	keys, err := sshd.LoadHostKeys(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return cli.WithHint(err, "'corehaul serve --ssh' creates the host keys at its first start; name its data directory with --data DIR")
	}
	if err != nil {
		return err
	}
	lines := make([]string, len(keys))
	for i, key := range keys {
		lines[i] = knownhosts.Line(names, key.PublicKey())
	}
	if a.json {
		return cli.JSON(a.stdio.Out, hostKeys{lines})
	}
	_, err = fmt.Fprintln(a.stdio.Out, strings.Join(lines, "\n"))
	return err
}
