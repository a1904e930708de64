package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/cmd/internal/cli"
)

// sockets are those that systemd listens on for this process (sd_listen_fds(3)), by scheme and address of the configuration.
type sockets map[socketKey]net.Listener

type socketKey struct{ scheme, addr string }

// passedSockets takes the sockets that systemd has passed. Each has to be for an address of the configuration: its name says for which
// key.
func passedSockets(c *serveConfig) (sockets, error) {
	all := sockets{}
	for _, f := range activation.Files(true) {
		if err := all.add(f, map[string][]string{"tls": c.tls, "ssh": c.ssh}); err != nil {
			all.close()
			return nil, fmt.Errorf("socket %q of systemd: %w", f.Name(), err)
		}
	}
	return all, nil
}

// add adds a socket for one of the addresses of the schemes.
func (s sockets) add(f *os.File, addrs map[string][]string) error {
	defer func() { _ = f.Close() }() // a listener has a copy
	scheme := f.Name()
	if _, ok := addrs[scheme]; !ok {
		return cli.WithHint(errors.New("no key of the configuration has this name"), "give the socket unit FileDescriptorName=tls or FileDescriptorName=ssh")
	}
	if is, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || is == 0 {
		return cli.WithHint(errors.New("it does not listen for connections"), "give the socket unit ListenStream=ADDRESS and Accept=no")
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	at, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return cli.WithHint(errors.Join(fmt.Errorf("%s is no TCP address", l.Addr()), l.Close()), "give the socket unit ListenStream=PORT or ListenStream=ADDRESS:PORT")
	}
	i := slices.IndexFunc(addrs[scheme], func(addr string) bool { return s[socketKey{scheme, addr}] == nil && sameAddress(addr, at) })
	if i < 0 {
		return cli.WithHint(errors.Join(fmt.Errorf("it listens on %s, and %s of the configuration is %s", at, scheme, addressList(addrs[scheme])), l.Close()),
			fmt.Sprintf("give the configuration the address too: %s = [%q]", scheme, at))
	}
	s[socketKey{scheme, addrs[scheme][i]}] = l
	return nil
}

func addressList(addrs []string) string {
	if len(addrs) == 0 {
		return "not set"
	}
	return strings.Join(addrs, ", ")
}

// sameAddress reports whether an address of the configuration names the one that a socket is bound to. Port 0 names any.
func sameAddress(addr string, at *net.TCPAddr) bool {
	want, err := net.ResolveTCPAddr("tcp", addr)
	switch {
	case err != nil || want.Port != 0 && want.Port != at.Port:
		return false
	case want.IP == nil: // all addresses
		return at.IP.IsUnspecified()
	}
	return want.IP.Equal(at.IP)
}

// take returns the socket for an address, nil if there is none.
func (s sockets) take(scheme, addr string) net.Listener {
	l := s[socketKey{scheme, addr}]
	delete(s, socketKey{scheme, addr})
	return l
}

// close closes the sockets that were not taken.
func (s sockets) close() {
	for _, l := range s {
		_ = l.Close() // nothing was accepted
	}
}
