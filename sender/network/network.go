// Package network brings up the network of a capture kernel, where nothing else
// does: links, addresses and routes through netlink, IPv4 by DHCP (RFC 2131, with
// the classless routes of RFC 3442), IPv6 by the kernel's own router advertisement
// handling, and resolv.conf for the resolver.
//
// Links may appear late, cables may be slow to negotiate and DHCP servers to answer,
// so Up tries until it has an address or its context ends. Without a configured
// interface every Ethernet link is tried; the first one with an address wins.
//
// It needs CAP_NET_ADMIN and CAP_NET_RAW, and a kernel with CONFIG_PACKET. DHCPv6,
// VLANs, bonds and wireless are not supported: a capture kernel that needs them
// configures the network itself and says mode = "none". What a DHCP server sends is
// checked by the DHCP library; values from it become addresses, routes and resolver
// addresses and nothing else. Up may be called once at a time.
package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/sender/config"
)

// How long to wait between two tries, and for a link that has no carrier yet.
const (
	retryEvery = time.Second
	noteEvery  = 10 * time.Second
)

// ErrNoLink says that no network interface of the wanted kind has appeared.
var ErrNoLink = errors.New("no network interface")

// A Manager brings one network up and keeps it.
type Manager struct {
	// Config says how.
	Config config.Network
	// ResolvConf is the file for the resolvers' addresses; empty writes none.
	ResolvConf string
	// Log takes a line for people whenever something is worth one.
	Log func(format string, args ...any)

	mu     sync.Mutex
	noted  map[string]time.Time
	dns    []netip.Addr
	search []string
	wg     sync.WaitGroup
	stop   context.CancelFunc
}

// Up returns when the network has an address, or with the last error when ctx
// ends before that. Leases are renewed until Close.
func (m *Manager) Up(ctx context.Context) error {
	m.noted = map[string]time.Time{}
	m.dns = m.Config.DNS
	if err := m.writeResolvConf(); err != nil {
		m.Log("network: %v", err)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo)
	}
	if m.Config.Mode == "none" {
		return nil
	}
	for {
		err := m.try(ctx, background)
		if err == nil {
			return nil
		}
		m.logUnlessRepeated("network: %v; trying again", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("network: %w", err)
		case <-time.After(retryEvery):
		}
	}
}

// Close ends the renewal of leases. Addresses stay.
func (m *Manager) Close() {
	if m.stop != nil {
		m.stop()
	}
	m.wg.Wait()
}

// logUnlessRepeated logs a line unless it logged the same line within noteEvery: some errors repeat with every attempt.
func (m *Manager) logUnlessRepeated(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	m.mu.Lock()
	last, ok := m.noted[line]
	fresh := !ok || time.Since(last) >= noteEvery
	if fresh {
		m.noted[line] = time.Now()
	}
	m.mu.Unlock()
	if fresh {
		m.Log("%s", line)
	}
}

// try goes over all links once.
func (m *Manager) try(ctx, background context.Context) error {
	links, err := m.links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if err := m.raise(l); err != nil {
			return fmt.Errorf("%s: %w", l.Attrs().Name, err)
		}
	}
	ready := slices.DeleteFunc(slices.Clone(links), func(l netlink.Link) bool { return !hasCarrier(l.Attrs().Name) })
	if len(ready) == 0 {
		return fmt.Errorf("%s: no carrier", names(links))
	}
	if m.Config.Mode == "static" {
		return m.static(ready[0])
	}
	return m.dynamic(ctx, background, ready)
}

// links returns the wanted interfaces that are there.
func (m *Manager) links() ([]netlink.Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list of interfaces: %w", err)
	}
	var found []netlink.Link
	for _, l := range all {
		a := l.Attrs()
		switch want := m.Config.Interface; {
		case a.Flags&net.FlagLoopback != 0:
		case want == "" && a.EncapType == "ether" && (l.Type() == "device" || l.Type() == "veth"):
			found = append(found, l)
		case want != "" && (a.Name == want || strings.EqualFold(a.HardwareAddr.String(), want)):
			found = append(found, l)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	if m.Config.Interface != "" {
		return nil, fmt.Errorf("%w %s (there is %s)", ErrNoLink, m.Config.Interface, names(all))
	}
	return nil, fmt.Errorf("%w (is the driver's module in the initramfs?)", ErrNoLink)
}

func (m *Manager) raise(l netlink.Link) error {
	if mtu := m.Config.MTU; mtu != 0 && l.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(l, mtu); err != nil {
			return fmt.Errorf("mtu %d: %w", mtu, err)
		}
	}
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	return netlink.LinkSetUp(l)
}

// hasCarrier asks anew, because drivers report carrier only after the link is up.
// A driver that reports none at all (operstate unknown) counts as connected.
func hasCarrier(name string) bool {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return false
	}
	return l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}

// static gives the configured addresses and routes to one link.
func (m *Manager) static(l netlink.Link) error {
	for _, p := range m.Config.Address {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			// Duplicate address detection would hold the address back for seconds.
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(l, a); err != nil {
			return fmt.Errorf("%s: address %s: %w", l.Attrs().Name, p, err)
		}
	}
	for _, gw := range m.Config.Gateway {
		if err := addRoute(l, netip.Prefix{}, gw); err != nil {
			return err
		}
	}
	m.Log("network: %s has %v", l.Attrs().Name, m.Config.Address)
	return nil
}

// addRoute routes dst, or everything when dst is the zero Prefix, over gw. The router may
// lie outside the link's own networks, as cloud providers like it. The zero gw
// stands for the link itself.
func addRoute(l netlink.Link, dst netip.Prefix, gw netip.Addr) error {
	r := &netlink.Route{LinkIndex: l.Attrs().Index}
	if dst.IsValid() {
		r.Dst = &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())}
	} else {
		zero := net.IPv4zero.To4()
		if gw.Is6() {
			zero = net.IPv6zero
		}
		r.Dst = &net.IPNet{IP: zero, Mask: make(net.IPMask, len(zero))}
	}
	if gw.IsValid() && !gw.IsUnspecified() {
		r.Gw = gw.AsSlice()
		r.Flags = int(netlink.FLAG_ONLINK)
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("%s: route over %s: %w", l.Attrs().Name, gw, err)
	}
	return nil
}

// writeResolvConf writes the configured resolvers and those learnt, at most three, which
// is what resolvers read.
func (m *Manager) writeResolvConf() error {
	if m.ResolvConf == "" || len(m.dns) == 0 {
		return nil
	}
	var b strings.Builder
	if len(m.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(m.search, " "))
	}
	for _, a := range m.dns[:min(3, len(m.dns))] {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	return os.WriteFile(m.ResolvConf, []byte(b.String()), 0o644)
}

func names(links []netlink.Link) string {
	var s []string
	for _, l := range links {
		s = append(s, l.Attrs().Name)
	}
	return strings.Join(s, ", ")
}
