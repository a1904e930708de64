package hostnet

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/sender/config"
)

// insideEnv marks the test process that runs in network and user namespaces of its own.
const insideEnv = "COREHAUL_TEST_NETNS"

// TestMain runs the tests in fresh namespaces, where they may make interfaces and routes.
func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		os.Exit(m.Run())
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

func prefix(s string) *net.IPNet {
	p := netip.MustParsePrefix(s)
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// hardware makes an interface that sysfs says has hardware.
func hardware(t *testing.T, sys, name, mac string) netlink.Link {
	t.Helper()
	hw, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: hw}, PeerName: "to" + name}
	if err := netlink.LinkAdd(v); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(l) })
	for _, name := range []string{name, "to" + name} {
		end, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(end)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(sys, "class/net", name, "device"), 0o755); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestPathTo asks the kernel: a card with static addresses of both families, and one with a lease.
func TestPathTo(t *testing.T) {
	sys := t.TempDir()
	static := hardware(t, sys, "ens3", "52:54:00:00:00:03")
	leased := hardware(t, sys, "ens4", "52:54:00:00:00:04")
	const hour = 3600
	for l, addrs := range map[netlink.Link][]*netlink.Addr{
		static: {{IPNet: prefix("192.0.2.7/24")}, {IPNet: prefix("2001:db8::7/64"), Flags: unix.IFA_F_NODAD}},
		leased: {{IPNet: prefix("198.51.100.7/24"), ValidLft: hour, PreferedLft: hour}},
	} {
		for _, a := range addrs {
			if err := netlink.AddrAdd(l, a); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range []struct {
		link    netlink.Link
		dst, gw string
	}{
		{static, "0.0.0.0/0", "192.0.2.1"}, {static, "203.0.113.0/24", "192.0.2.2"}, {static, "::/0", "2001:db8::1"},
	} {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: r.link.Attrs().Index, Dst: prefix(r.dst), Gw: netip.MustParseAddr(r.gw).AsSlice()}); err != nil {
			t.Fatal(err)
		}
	}
	ens3 := Layers{Cards: []Card{{"ens3", "52:54:00:00:00:03", "class/net/ens3/device"}}}
	gw, v4 := netip.MustParseAddr("192.0.2.1"), netip.MustParsePrefix("192.0.2.7/24")
	for to, want := range map[string]Path{
		"192.0.2.53":    {Interface: "ens3", Source: v4, Default: gw, MTU: 1500, Layers: ens3},
		"100.64.0.1":    {Interface: "ens3", Source: v4, Default: gw, Gateway: gw, MTU: 1500, Layers: ens3},
		"203.0.113.9":   {Interface: "ens3", Source: v4, Default: gw, Gateway: netip.MustParseAddr("192.0.2.2"), MTU: 1500, Layers: ens3},
		"2001:db8:1::1": {Interface: "ens3", Source: netip.MustParsePrefix("2001:db8::7/64"), Default: netip.MustParseAddr("2001:db8::1"), Gateway: netip.MustParseAddr("2001:db8::1"), MTU: 1500, Layers: ens3},
		"198.51.100.1": {Interface: "ens4", Source: netip.MustParsePrefix("198.51.100.7/24"), Dynamic: true, MTU: 1500, Layers: Layers{
			Cards: []Card{{"ens4", "52:54:00:00:00:04", "class/net/ens4/device"}},
		}},
	} {
		want.Target = netip.MustParseAddr(to)
		got, err := PathTo(sys, want.Target)
		if err != nil {
			t.Errorf("%s: %v", to, err)
			continue
		}
		if d := cmp.Diff(&want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
			t.Errorf("%s: -want +got\n%s", to, d)
		}
	}
	if p, err := PathToHost(t.Context(), sys, "203.0.113.9"); err != nil || p.Interface != "ens3" {
		t.Errorf("an address as a host: got %+v, %v", p, err)
	}
	if _, err := PathToHost(t.Context(), sys, "no host"); err == nil || !strings.Contains(err.Error(), "no host") {
		t.Errorf("no host: %v", err)
	}
	if _, err := PathTo(sys, v4.Addr()); err == nil || !strings.Contains(err.Error(), "this machine") {
		t.Errorf("to this machine: %v", err)
	}
}

func TestNetwork(t *testing.T) {
	addr, dns := netip.MustParseAddr, []netip.Addr{netip.MustParseAddr("192.0.2.53")}
	card := func(mac string) Layers { return Layers{Cards: []Card{{Name: "x", MAC: mac}}} }
	static := &Path{Interface: "ens3", Target: addr("203.0.113.9"), Source: netip.MustParsePrefix("192.0.2.7/24"), Default: addr("192.0.2.1"), Gateway: addr("192.0.2.2"), MTU: 9000, Layers: card("m3")}
	second := *static
	second.Target, second.Gateway = addr("192.0.2.9"), netip.Addr{}
	leased := &Path{Interface: "ens4", Target: addr("198.51.100.1"), Dynamic: true, MTU: 9000, Layers: card("m4")}
	bonded := &Path{Interface: "bond0.7", Dynamic: true, MTU: 1500, Layers: Layers{VLAN: 7, Bond: config.Bond{Mode: "802.3ad", Ports: []string{"m5", "m6"}}}}
	for name, tc := range map[string]struct {
		paths []*Path
		want  config.Network
	}{
		"none":                {want: config.Network{Mode: "dhcp"}},
		"leased":              {paths: []*Path{leased}, want: config.Network{Mode: "dhcp"}},
		"leases of two cards": {paths: []*Path{leased, {Interface: "ens5", Dynamic: true, MTU: 1500, Layers: card("m5")}}, want: config.Network{Mode: "dhcp"}},
		"static": {paths: []*Path{static, &second}, want: config.Network{
			Mode: "static", Interface: "m3", MTU: 9000, Address: []netip.Prefix{static.Source}, Gateway: []netip.Addr{static.Default}, DNS: dns,
			Routes: []config.Route{{To: netip.MustParsePrefix("203.0.113.9/32"), Via: static.Gateway}},
		}},
		"lease of a VLAN on a bond": {paths: []*Path{bonded}, want: config.Network{Mode: "dhcp", VLAN: 7, Bond: bonded.Bond}},
	} {
		if d := cmp.Diff(tc.want, Network(tc.paths, dns), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
			t.Errorf("%s: -want +got\n%s", name, d)
		}
	}
	staticBeside := *leased
	staticBeside.Dynamic = false
	for _, tc := range []struct {
		name string
		p, q *Path
		want bool
	}{
		{"two addresses of one interface", static, &second, true},
		{"leases of two cards", leased, &Path{Interface: "ens5", Dynamic: true, Layers: card("m5")}, true},
		{"a lease and a static address", leased, static, false},
		{"a lease and a static address of one interface", leased, &staticBeside, false},
		{"a card and a bond", leased, bonded, false},
		{"a bond and itself", bonded, bonded, true},
	} {
		if got := tc.p.Fits(tc.q); got != tc.want {
			t.Errorf("%s: got %t", tc.name, got)
		}
		if got := tc.q.Fits(tc.p); got != tc.want {
			t.Errorf("%s, the other way round: got %t", tc.name, got)
		}
	}
}

func TestResolvers(t *testing.T) {
	root := t.TempDir()
	write := func(file, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := Resolvers(root); got != nil {
		t.Errorf("got %v of no file", got)
	}
	write("run/systemd/resolve/resolv.conf", "# comment\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver fe80::1%eth0\nnameserver 192.0.2.53\nsearch example.net\n")
	write("run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\noptions edns0\n")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../run/systemd/resolve/stub-resolv.conf", filepath.Join(root, "etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	if got, want := Resolvers(root), []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
