package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Times of DHCP. A server answers within milliseconds, unless the switch did not forward yet (spanning tree blocks ports
// for up to 30 s). So short tries are better than long ones.
const (
	dhcpTry    = 3 * time.Second
	dhcpRounds = 2
	dhcpTime   = dhcpTry*dhcpRounds + time.Second
	slaacPoll  = 250 * time.Millisecond
	minRenewal = 30 * time.Second
	maxSearch  = 6
	// maxPause bounds the pauses of keepAsking.
	maxPause = 30 * time.Second
)

// dynamic asks for an IPv4 address on all links at once, and watches for an IPv6 address by router advertisement. It
// returns with the first address. If that is IPv6, it goes on to ask for IPv4 in the background, because the receiver may
// have only IPv4.
func (m *Manager) dynamic(ctx, background context.Context, links []netlink.Link) error {
	ctx, cancel := context.WithTimeout(ctx, dhcpTime)
	defer cancel()
	results := make(chan error, 2*len(links))
	var leased atomic.Bool
	for _, l := range links {
		go func() {
			err := m.dhcp(ctx, background, l)
			if err == nil {
				leased.Store(true)
			}
			results <- err
		}()
		go func() { results <- m.slaac(ctx, l) }()
	}
	var errs []error
	var won bool
	for range 2 * len(links) {
		err := <-results
		if err == nil {
			won = true
			cancel() // then only wait until the others have stopped
		} else if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			errs = append(errs, err)
		}
	}
	switch {
	case won:
		if !leased.Load() {
			for _, l := range links {
				m.wg.Go(func() { m.keepAsking(background, l) })
			}
		}
		return nil
	case len(errs) > 0:
		return errors.Join(errs...)
	}
	return fmt.Errorf("%s: no answer from a DHCP server and no router advertisement", names(links))
}

// keepAsking asks for an IPv4 address until there is one. The pauses grow, because many networks have only IPv6 and an open
// client costs time (see client).
func (m *Manager) keepAsking(background context.Context, l netlink.Link) {
	for pause := retryEvery; ; pause = min(2*pause, maxPause) {
		ctx, cancel := context.WithTimeout(background, dhcpTime)
		err := m.dhcp(ctx, background, l)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-background.Done():
			return
		case <-time.After(pause):
		}
	}
}

// dhcp gets one lease for one link and applies it.
func (m *Manager) dhcp(ctx, background context.Context, l netlink.Link) error {
	lease, err := request(ctx, l)
	if err != nil {
		return err
	}
	if err := m.apply(l, lease.ACK); err != nil {
		return err
	}
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		m.renew(background, l, lease)
	}()
	return nil
}

// client opens a DHCP client. It must not stay open while a dump is sent, because its packet socket gets a copy of every
// packet of the link.
func client(l netlink.Link) (*nclient4.Client, error) {
	a := l.Attrs()
	c, err := nclient4.New(a.Name, nclient4.WithTimeout(dhcpTry), nclient4.WithRetry(dhcpRounds), nclient4.WithHWAddr(a.HardwareAddr))
	if err != nil {
		return nil, fmt.Errorf("%s: dhcp: %w", a.Name, err)
	}
	return c, nil
}

func request(ctx context.Context, l netlink.Link) (*nclient4.Lease, error) {
	c, err := client(l)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	lease, err := c.Request(ctx, dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter,
		dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionDNSDomainSearchList,
		dhcpv4.OptionInterfaceMTU, dhcpv4.OptionClasslessStaticRoute))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%s: dhcp: %w", l.Attrs().Name, err)
	}
	return lease, nil
}

// apply configures the addresses, routes and resolvers of a lease.
func (m *Manager) apply(l netlink.Link, ack *dhcpv4.DHCPv4) error {
	mask := ack.SubnetMask()
	if len(mask) != net.IPv4len {
		mask = ack.YourIPAddr.DefaultMask()
	}
	ip := ack.YourIPAddr.To4()
	if ip == nil || ip.IsUnspecified() || mask == nil {
		return fmt.Errorf("%s: dhcp: server %s granted no address", l.Attrs().Name, ack.ServerIdentifier())
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 && m.Config.MTU == 0 {
		if err := netlink.LinkSetMTU(l, int(mtu)); err != nil {
			m.Log("network: %s: mtu %d of the DHCP server: %v", l.Attrs().Name, mtu, err)
		}
	}
	if err := netlink.AddrReplace(l, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: mask}}); err != nil {
		return fmt.Errorf("%s: address %s: %w", l.Attrs().Name, ip, err)
	}
	for _, r := range routesOf(ack) {
		if err := addRoute(l, r.dst, r.gw); err != nil {
			m.Log("network: %v", err)
		}
	}
	m.learnDNS(ack)
	ones, _ := mask.Size()
	m.Log("network: %s has %s/%d from DHCP server %s", l.Attrs().Name, ip, ones, ack.ServerIdentifier())
	return nil
}

type route struct {
	dst netip.Prefix
	gw  netip.Addr
}

// routesOf returns the routes of a lease. If there are classless routes, the router option must be ignored (RFC 3442).
func routesOf(ack *dhcpv4.DHCPv4) []route {
	var list []route
	for _, r := range ack.ClasslessStaticRoute() {
		ip, ok := netip.AddrFromSlice(r.Dest.IP.To4())
		gw, ok2 := netip.AddrFromSlice(r.Router.To4())
		ones, bits := r.Dest.Mask.Size()
		if ok && ok2 && bits == 32 {
			list = append(list, route{netip.PrefixFrom(ip, ones).Masked(), gw})
		}
	}
	if len(list) > 0 {
		return list[:min(len(list), maxRoutes)]
	}
	for _, r := range ack.Router() {
		if gw, ok := netip.AddrFromSlice(r.To4()); ok {
			return []route{{gw: gw}}
		}
	}
	return nil
}

// maxRoutes bounds the routes of a lease.
const maxRoutes = 32

func (m *Manager) learnDNS(ack *dhcpv4.DHCPv4) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ip := range ack.DNS() {
		a, ok := netip.AddrFromSlice(ip.To4())
		if ok && !slices.Contains(m.dns, a) {
			m.dns = append(slices.Clip(m.dns), a)
		}
	}
	if labels := ack.DomainSearch(); labels != nil {
		m.search = labels.Labels
	} else if name := ack.DomainName(); name != "" {
		m.search = []string{name}
	}
	m.search = slices.DeleteFunc(slices.Clone(m.search), func(s string) bool { return !plainDomain(s) })
	m.search = m.search[:min(len(m.search), maxSearch)]
	if err := m.writeResolvConf(); err != nil {
		m.Log("network: %v", err)
	}
}

// plainDomain reports whether s is a domain name that cannot be read as another word or line of resolv.conf.
func plainDomain(s string) bool {
	return s != "" && len(s) < 254 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '.' && r != '_'
	})
}

// renew renews the lease after half of its time, as RFC 2131 says, so that a dump that takes hours keeps its address.
func (m *Manager) renew(ctx context.Context, l netlink.Link, lease *nclient4.Lease) {
	for {
		wait := max(lease.ACK.IPAddressLeaseTime(time.Hour)/2, minRenewal)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		next, err := renewOnce(ctx, l, lease)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			m.logUnlessRepeated("network: %s: lease not renewed: %v", l.Attrs().Name, err)
			continue
		}
		lease = next
	}
}

func renewOnce(ctx context.Context, l netlink.Link, lease *nclient4.Lease) (*nclient4.Lease, error) {
	c, err := client(l)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	return c.Renew(ctx, lease)
}

// slaac waits until the kernel has an IPv6 address and a default route from a router advertisement.
func (m *Manager) slaac(ctx context.Context, l netlink.Link) error {
	for {
		if a := globalIPv6(l); a != nil {
			m.Log("network: %s has %s by router advertisement", l.Attrs().Name, a)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(slaacPoll):
		}
	}
}

func globalIPv6(l netlink.Link) *net.IPNet {
	addrs, err := netlink.AddrList(l, netlink.FAMILY_V6)
	if err != nil {
		return nil
	}
	routes, err := netlink.RouteList(l, netlink.FAMILY_V6)
	if err != nil || !slices.ContainsFunc(routes, isDefault) {
		return nil
	}
	for _, a := range addrs {
		if a.IP.IsGlobalUnicast() && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			return a.IPNet
		}
	}
	return nil
}

func isDefault(r netlink.Route) bool {
	if r.Gw == nil {
		return false
	}
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}
