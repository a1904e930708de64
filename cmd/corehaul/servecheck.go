package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/receiver/sshd"
	"github.com/corehaul/corehaul/storage/stores"
)

// checkResult is the document of "serve --check --json".
type checkResult struct {
	Type     string            `json:"type"`   // "check"
	Config   string            `json:"config"` // the file; empty if there is none
	Problems []problemDocument `json:"problems"`
	Warnings []string          `json:"warnings"`
}

// checkServe says all that would keep a server from starting, or that may not be meant. It changes nothing.
func (a *app) checkServe(ctx context.Context, source *serveSource) error {
	c, found := source.read()
	found = append(found, c.surroundings(ctx, found)...)
	result := checkResult{Type: "check", Config: c.config, Problems: []problemDocument{}, Warnings: append([]string{}, c.checkWarnings()...)}
	for _, p := range found {
		result.Problems = append(result.Problems, p.document())
	}
	if a.json {
		if err := cli.JSON(a.stdio.Out, result); err != nil || len(found) == 0 {
			return err
		}
		return cli.Usage(nil)
	}
	for _, w := range result.Warnings {
		a.stdio.Warn("corehaul", "%s", w)
	}
	name := result.Config
	if name == "" {
		name = "the command line"
	}
	if len(found) > 0 {
		a.printProblems(result.Problems)
		return cli.Usagef("%s: %d problem(s)", name, len(found))
	}
	_, err := fmt.Fprintf(a.stdio.Out, "%s: nothing is wrong\n", cli.Printable(name))
	return err
}

// surroundings returns what is wrong outside of the configuration itself: with files and directories that it names, and with its addresses.
// It leaves out what known problems have made wrong.
func (c *serveConfig) surroundings(ctx context.Context, known problems) (found problems) {
	if c.config != "" && c.file == nil {
		return nil // nothing is known
	}
	_, untrusted := c.trusted(slog.New(slog.DiscardHandler))
	for _, p := range untrusted {
		if !known.about(p.key) {
			found.add(p)
		}
	}
	if !known.about("data") {
		c.checkData(&found)
	}
	if !known.about("data", "socket") {
		if err := c.checkSocket(); err != nil {
			found.add(c.problem("socket", err))
		}
	}
	if !known.about("tls", "ssh") {
		c.checkListeners(ctx, &found)
	}
	return found
}

// checkData adds what is wrong with the data directory.
func (c *serveConfig) checkData(found *problems) {
	const hint = "make it writable for the user that 'serve' runs as, or mount it read-write"
	dir, err := c.dir()
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		found.add(c.problem("data", err))
		return
	}
	errs := split(stores.Check(c.data))
	for _, name := range []string{stateDir, stockDir} {
		if _, err := plainfile.CheckDir(filepath.Join(dir, name)); err != nil && len(errs) == 0 {
			errs = append(errs, err)
		}
	}
	for _, err := range errs {
		found.add(c.problem("data", cli.WithHint(fmt.Errorf("the data directory cannot be used: %w", err), hint)))
	}
	if len(c.ssh) > 0 && len(errs) == 0 {
		found.addErr("data", sshd.CheckHostKeys(dir))
	}
}

// maxSocketPath is the longest path of a socket (sun_path in unix(7), with a zero at the end).
const maxSocketPath = 107

// checkSocket returns why there can be no control socket.
func (c *serveConfig) checkSocket() error {
	path, err := c.socketPath()
	if err != nil {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	switch {
	case len(path) > maxSocketPath:
		return cli.WithHint(fmt.Errorf("control socket: the path %s has %d bytes", path, len(path)), shorterSocket)
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		return cli.WithHint(fmt.Errorf("control socket: %s exists and is not a socket", path), "choose another path with --socket PATH")
	case c.socket == "":
		return nil // checkData knows the directory
	}
	missing, err := plainfile.CheckDir(filepath.Dir(path))
	switch {
	case err != nil:
		return fmt.Errorf("control socket: %w", err)
	case missing:
		return fmt.Errorf("control socket: %w", &fs.PathError{Op: "listen in", Path: filepath.Dir(path), Err: fs.ErrNotExist})
	}
	return nil
}

// resolveTimeout bounds the questions about names of this machine.
const resolveTimeout = 5 * time.Second

// checkListeners adds addresses on which this machine cannot listen, and those that are there twice.
func (c *serveConfig) checkListeners(ctx context.Context, found *problems) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	seen := map[string]string{}
	for _, list := range []struct {
		key   string
		addrs []string
	}{{"tls", c.tls}, {"ssh", c.ssh}} {
		for _, addr := range list.addrs {
			at, err := listenAddress(ctx, addr)
			if err != nil {
				found.add(c.problem(list.key, fmt.Errorf("--%s %s: %w", list.key, addr, err)))
				continue
			}
			before := seen[at.String()]
			if before != "" && at.Port != 0 {
				found.add(c.problem(list.key, fmt.Errorf("--%s %s: %s has the same address", list.key, addr, before)))
			}
			seen[at.String()] = fmt.Sprintf("--%s %s", list.key, addr)
		}
	}
}

// listenAddress returns the address that is meant, if this machine has it now.
func listenAddress(ctx context.Context, addr string) (*net.TCPAddr, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a port nor the name of a service", port)
	}
	if host == "" {
		return &net.TCPAddr{IP: net.IPv6unspecified, Port: n}, nil
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		err = errors.New(dns.Err) // the rest names the server
	}
	if err != nil || len(ips) == 0 {
		return nil, cli.WithHint(fmt.Errorf("the address of %q is not known: %w", host, err), "write the address itself, or [::] for all of this machine")
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	has := func(a net.Addr) bool {
		network, ok := a.(*net.IPNet)
		return ok && network.IP.Equal(ips[0].IP)
	}
	if ip := ips[0].IP; !ip.IsUnspecified() && !ip.IsLoopback() && !slices.ContainsFunc(own, has) {
		return nil, cli.WithHint(fmt.Errorf("this machine does not have the address %s now", ip), "'ip address' lists those that it has; [::] means all of them")
	}
	return &net.TCPAddr{IP: ips[0].IP, Port: n, Zone: ips[0].Zone}, nil
}

// checkWarnings says what is not wrong, but may not be meant.
func (c *serveConfig) checkWarnings() []string {
	texts := c.warnings()
	if dir, err := c.dir(); err == nil {
		if mode := openToOthers(dir); mode != nil {
			texts = append(texts, fmt.Sprintf("the data directory %s is open to others (%s); close it with: %s", dir, mode, closeToOthers+dir))
		}
	}
	if os.Geteuid() == 0 {
		again := append([]string{"runuser", "-u", "corehaul", "--", "corehaul", "serve", "--check"}, c.configArgs()...)
		texts = append(texts, "checked as root, who may read and write everything; if the server runs as another user, check as that one: "+strings.Join(again, " "))
	}
	return texts
}

func (c *serveConfig) configArgs() []string {
	if c.config == "" {
		return nil
	}
	return []string{"--config", c.config}
}
