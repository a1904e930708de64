// Package network configures the network of a capture kernel: links, addresses and routes
// through netlink, IPv4 by DHCP (RFC 2131, with the classless routes of RFC 3442), IPv6 by
// the kernel's own handling of router advertisements, and resolv.conf for the resolver.
//
// Links may appear late, and cables and DHCP servers may be slow. Therefore Up tries until
// it has an address or its context ends. Without a configured interface it tries every
// Ethernet link. The first one with an address wins.
//
// It needs CAP_NET_ADMIN and CAP_NET_RAW, and a kernel with CONFIG_PACKET. DHCPv6, VLANs,
// bonds and wireless are not supported. A capture kernel that needs them configures the
// network itself and sets mode = "none". The DHCP library checks what a DHCP server sends.
// Its values become addresses, routes, resolvers, search domains and an MTU, nothing else.
// Up must not be called concurrently.
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

// retryEvery is the pause between two tries, noteEvery the time before the same line is logged again.
const (
	retryEvery = time.Second
	noteEvery  = 10 * time.Second
)

// ErrNoLink says that there is no suitable network interface.
var ErrNoLink = errors.New("no network interface")

// A Manager configures the network and renews its leases.
type Manager struct {
	Config config.Network
	// ResolvConf is the path of the file for resolvers. Empty means no file.
	ResolvConf string
	// Log takes lines for people.
	Log func(format string, args ...any)

	mu     sync.Mutex
	noted  map[string]time.Time
	dns    []netip.Addr
	search []string
	wg     sync.WaitGroup
	stop   context.CancelFunc
}

// Up waits until the network has an address. If ctx ends before that, it returns the last error. Leases are renewed until
// Close.
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

// Close stops the renewal of leases. Addresses stay.
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

// try tries all links once.
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

// links returns the suitable interfaces.
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

// hasCarrier asks the kernel again, because drivers report carrier only after the link is up. A driver that never reports
// it (operstate unknown) counts as connected.
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
			// Duplicate address detection would delay the address by seconds.
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

// addRoute adds a route to dst over gw, a default route if dst is the zero Prefix. The router may be outside of the link's
// networks, as at some cloud providers. The zero gw means the link itself.
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

// writeResolvConf writes the first three resolvers, those of the configuration first. Resolver libraries read no more.
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
