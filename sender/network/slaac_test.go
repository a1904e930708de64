package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/sender/config"
)

// sysctl sets a variable of one interface. Both ends of the cable are in one namespace
// here, so the client must be told to believe advertisements of its own machine.
func sysctl(t *testing.T, link, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/"+name, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

// advertisement is a router advertisement (RFC 4861) for 2001:db8:1::/64, with name servers and a search domain (RFC 8106).
func advertisement() []byte {
	b := make([]byte, 16+32, 16+32+8+2*16+8+16)
	b[0], b[4] = 134, 64
	binary.BigEndian.PutUint16(b[6:], 1800)
	prefix := b[16:]
	prefix[0], prefix[1], prefix[2], prefix[3] = 3, 4, 64, 0xc0
	binary.BigEndian.PutUint32(prefix[4:], 3600)
	binary.BigEndian.PutUint32(prefix[8:], 3600)
	copy(prefix[16:], net.ParseIP("2001:db8:1::"))
	b = append(b, raDNS, 5, 0, 0, 0, 0, 0, 60)
	b = append(append(b, net.ParseIP("2001:db8:1::53")...), net.ParseIP("fe80::53")...)
	b = append(b, raDomains, 3, 0, 0, 0, 0, 0, 60)
	return append(b, "\x07example\x03org\x00\x00\x00\x00"...)
}

// advertise sends an advertisement every 100 ms until the test ends.
func advertise(t *testing.T, link string) {
	t.Helper()
	var lc net.ListenConfig
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		var serr error
		err := c.Control(func(fd uintptr) {
			serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
		})
		if err != nil {
			return err
		}
		return serr
	}
	conn, err := lc.ListenPacket(t.Context(), "ip6:58", "fe80::1%"+link)
	if err != nil {
		t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			_, _ = conn.WriteTo(advertisement(), &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: link})
			select {
			case <-quit:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { close(quit); <-done; _ = conn.Close() })
}

// advertised is a pair whose server is an IPv6 router.
func advertised(t *testing.T, srv, cli string) (server, client netlink.Link) {
	t.Helper()
	server, client = pair(t, srv, cli)
	for _, link := range []string{srv, cli} {
		sysctl(t, link, "accept_dad", "0")
		sysctl(t, link, "dad_transmits", "0")
	}
	sysctl(t, cli, "accept_ra_from_local", "1")
	sysctl(t, srv, "accept_ra", "0")
	router := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fe80::1"), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrAdd(server, router); err != nil {
		t.Fatal(err)
	}
	advertise(t, srv)
	return server, client
}

func TestRouterAdvertisement(t *testing.T) {
	_, client := advertised(t, "srv5", "cli5")
	var log logger
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	m := &Manager{Log: log.Logf, Config: config.Network{Mode: "dhcp", Interface: "cli5"}, ResolvConf: resolv}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.Up(ctx); err != nil {
		t.Fatal(err, log.lines)
	}
	const want = "search example.org\nnameserver 2001:db8:1::53\nnameserver fe80::53%cli5\n"
	for got := ""; got != want; {
		b, err := os.ReadFile(resolv)
		if got = string(b); ctx.Err() != nil {
			t.Fatalf("resolv.conf is %q (%v), want %q", got, err, want)
		}
		sleep(ctx, poll)
	}
	if len(globalIPv6(client.Attrs().Index)) == 0 {
		t.Error("no address")
	}
	log.await(ctx, t, "by router advertisement") // Up may return before
}

// TestDHCPAfterAdvertisement has a DHCP server appear when the network is up already.
func TestDHCPAfterAdvertisement(t *testing.T) {
	server, client := advertised(t, "srv6", "cli6")
	var log logger
	m := &Manager{Log: log.Logf, Config: config.Network{Mode: "dhcp", Interface: "cli6"}}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.Up(ctx); err != nil {
		t.Fatal(err, log.lines)
	}
	serveDHCP(t, server)
	for !log.has("192.0.2.7/24 from DHCP server") {
		select {
		case <-ctx.Done():
			t.Fatalf("no IPv4 address; log %q", log.lines)
		case <-time.After(poll):
		}
	}
	checkAddr(t, client, "192.0.2.7/24")
}

// TestHear: what is said later counts, servers may go, and options that are cut off say nothing.
func TestHear(t *testing.T) {
	m := &Manager{Log: new(logger).Logf, links: map[int]*link{}}
	l := &link{m: m, name: "eth0"}
	m.links[7] = l
	dns := func(lifetime byte, addr string) []byte {
		return append([]byte{raDNS, 3, 0, 0, 0, 0, 0, lifetime}, net.ParseIP(addr)...)
	}
	for _, tc := range []struct {
		index  int
		option []byte
		want   string
	}{
		{7, dns(60, "2001:db8::53"), "[2001:db8::53]"},
		{8, dns(60, "2001:db8::54"), "[2001:db8::53]"}, // no such link
		{7, dns(60, "2001:db8::53")[:7], "[2001:db8::53]"},
		{7, dns(60, "fe80::53"), "[fe80::53%eth0]"},
		{7, dns(60, "::ffff:192.0.2.1"), "[]"},
		{7, dns(60, "2001:db8::55"), "[2001:db8::55]"},
		{7, dns(0, "2001:db8::55"), "[]"},
	} {
		m.hear(tc.index, tc.option)
		if got := fmt.Sprint(l.dns[ofRouter]); got != tc.want {
			t.Errorf("after %x: %s, want %s", tc.option, got, tc.want)
		}
	}
	if _, err := l.lookup(t.Context(), "collector.test"); !errors.Is(err, errNoServer) {
		t.Errorf("without servers, a lookup gives %v", err)
	}
	for _, b := range [][]byte{nil, make([]byte, sizeofNDUserOpt-1), {unix.AF_INET6, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if _, option, ok := ndUserOption(b); ok {
			t.Errorf("%x has the option %x", b, option)
		}
	}
}
