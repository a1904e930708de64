package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/sender/config"
)

// insideEnv marks the test process that runs in network and user namespaces of its own.
const insideEnv = "COREHAUL_TEST_NETNS"

// TestMain runs the tests in fresh namespaces, where they may do as they please and
// need no rights outside.
func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		goleak.VerifyTestMain(m)
		return
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...) //nolint:noctx // the test binary itself
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// pair makes two interfaces joined by a cable: one for the test's server and one for the
// Manager. The names differ from test to test.
func pair(t *testing.T, server, client string) (serverLink, clientLink netlink.Link) {
	t.Helper()
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: server}, PeerName: client}); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(l) })
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	c, err := netlink.LinkByName(client)
	if err != nil {
		t.Fatal(err)
	}
	return l, c
}

type logger struct {
	mu    sync.Mutex
	lines []string
}

func (l *logger) Logf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *logger) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(strings.Join(l.lines, "\n"), s)
}

// lease is what a DHCP server of a test grants to everybody, /24.
type lease struct{ self, client, router, dns string }

// serveDHCP grants 192.0.2.7 to everybody, with all options that we use.
func serveDHCP(t *testing.T, l netlink.Link) {
	t.Helper()
	if err := netlink.AddrAdd(l, testAddr("192.0.2.1/24")); err != nil {
		t.Fatal(err)
	}
	lease{"192.0.2.1", "192.0.2.7", "192.0.2.254", ""}.serve(t, l.Attrs().Name, dhcpv4.WithDNS(net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 2)),
		dhcpv4.WithOption(dhcpv4.OptDomainName("example.org\nnameserver evil")), dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x05, 0x78}))
}

func testAddr(cidr string) *netlink.Addr {
	return staticAddr(netip.MustParsePrefix(cidr))
}

// serve runs a DHCP server on a link of this thread's network namespace.
func (l lease) serve(t *testing.T, link string, more ...dhcpv4.Modifier) {
	t.Helper()
	ip := func(s string) net.IP { return net.ParseIP(s).To4() }
	handle := func(conn net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
		reply := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			reply = dhcpv4.MessageTypeAck
		}
		mods := []dhcpv4.Modifier{
			dhcpv4.WithMessageType(reply), dhcpv4.WithYourIP(ip(l.client)), dhcpv4.WithServerIP(ip(l.self)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip(l.self))), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(600),
		}
		if l.router != "" {
			mods = append(mods, dhcpv4.WithRouter(ip(l.router)))
		}
		if l.dns != "" {
			mods = append(mods, dhcpv4.WithDNS(ip(l.dns)))
		}
		if r, err := dhcpv4.NewReplyFromRequest(m, append(mods, more...)...); err == nil {
			_, _ = conn.WriteTo(r.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort})
		}
	}
	s, err := server4.NewServer(link, nil, handle)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve() }()
	t.Cleanup(func() { _ = s.Close(); <-done })
}

func TestDHCP(t *testing.T) {
	server, client := pair(t, "srv0", "cli0")
	serveDHCP(t, server)
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	var log logger
	m := &Manager{
		Config: config.Network{Mode: "dhcp", Interface: client.Attrs().HardwareAddr.String(), DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}},
		Log:    log.Logf, ResolvConf: resolv,
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.Up(ctx); err != nil {
		t.Fatal(err)
	}
	checkAddr(t, client, "192.0.2.7/24")
	routes, err := netlink.RouteList(client, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(fmt.Sprint(routes), "Gw: 192.0.2.254") {
		t.Errorf("routes %v, want one over 192.0.2.254", routes)
	}
	got, err := os.ReadFile(resolv)
	if want := "nameserver 192.0.2.53\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"; err != nil || string(got) != want {
		t.Errorf("resolv.conf %q (%v), want %q", got, err, want)
	}
	if l, _ := netlink.LinkByName("cli0"); l.Attrs().MTU != 1400 {
		t.Errorf("mtu %d, want the server's 1400", l.Attrs().MTU)
	}
	log.await(ctx, t, "192.0.2.7/24 from DHCP server 192.0.2.1") // Up may return before
}

func TestLeaseRenewal(t *testing.T) {
	server, client := pair(t, "srv4", "cli4")
	serveDHCP(t, server)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := netlink.LinkSetUp(client); err != nil {
		t.Fatal(err)
	}
	l := &link{index: client.Attrs().Index, name: "cli4"}
	lease, err := l.request(ctx)
	if err != nil {
		t.Fatal(err)
	}
	next, err := l.renewOnce(ctx, lease)
	if err != nil || !next.CreationTime.After(lease.CreationTime) || !next.ACK.YourIPAddr.Equal(lease.ACK.YourIPAddr) {
		t.Errorf("renewed %v (%v)", next, err)
	}
}

func TestDHCPWithoutServer(t *testing.T) {
	_, client := pair(t, "srv1", "cli1")
	var log logger
	m := &Manager{Config: config.Network{Mode: "dhcp", Interface: client.Attrs().Name}, Log: log.Logf}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := m.Up(ctx); err == nil {
		t.Error("up without a server")
	}
}

func TestStatic(t *testing.T) {
	_, client := pair(t, "srv2", "cli2")
	var log logger
	m := &Manager{Log: log.Logf, Config: config.Network{
		Mode: "static", Interface: "cli2", MTU: 1300,
		Address: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("2001:db8::7/64")},
		// Outside the /32: works only when the route is on-link.
		Gateway: []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("fe80::1")},
	}}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.Up(ctx); err != nil {
		t.Fatal(err)
	}
	checkAddr(t, client, "198.51.100.7/32")
	checkAddr(t, client, "2001:db8::7/64")
	for family, gw := range map[int]string{netlink.FAMILY_V4: "198.51.100.1", netlink.FAMILY_V6: "fe80::1"} {
		routes, err := netlink.RouteList(client, family)
		if err != nil || !strings.Contains(fmt.Sprint(routes), "Gw: "+gw) {
			t.Errorf("routes %v (%v), want one over %s", routes, err, gw)
		}
	}
}

func TestInterfaceAppearsLate(t *testing.T) {
	var log logger
	m := &Manager{Log: log.Logf, Config: config.Network{
		Mode: "static", Interface: "cli3", Address: []netip.Prefix{netip.MustParsePrefix("198.51.100.8/24")},
	}}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.Up(ctx) }()
	for !log.has("no network interface cli3") {
		time.Sleep(time.Millisecond)
	}
	_, client := pair(t, "srv3", "cli3")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	checkAddr(t, client, "198.51.100.8/24")
}

func TestNoInterface(t *testing.T) {
	var log logger
	m := &Manager{Log: log.Logf, Config: config.Network{Mode: "dhcp"}}
	defer m.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Up(ctx); !errors.Is(err, ErrNoLink) {
		t.Errorf("got %v, want ErrNoLink", err)
	}
}

func TestRoutesOf(t *testing.T) {
	router := dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1))
	classless := dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 0, 0, 0), Mask: net.CIDRMask(8, 32)}, Router: net.IPv4(192, 0, 2, 9)}))
	for _, tc := range []struct {
		name string
		mods []dhcpv4.Modifier
		want string
	}{
		{"none", nil, ""},
		{"router", []dhcpv4.Modifier{router}, "default over 192.0.2.1"},
		{"classless wins", []dhcpv4.Modifier{router, classless}, "10.0.0.0/8 over 192.0.2.9"},
	} {
		m, err := dhcpv4.New(tc.mods...)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, r := range routesOf(m) {
			dst := "default"
			if r.dst.IsValid() {
				dst = r.dst.String()
			}
			list = append(list, dst+" over "+r.gw.String())
		}
		if got := strings.Join(list, ", "); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

func checkAddr(t *testing.T, l netlink.Link, want string) {
	t.Helper()
	addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if a.IPNet.String() == want {
			return
		}
	}
	t.Errorf("%s has %v, want %s", l.Attrs().Name, addrs, want)
}
