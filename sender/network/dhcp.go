package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
)

// Times of DHCP. A server answers within milliseconds, unless the switch did not forward yet (spanning tree blocks ports
// for up to 30 s). So short tries are better than long ones.
const (
	dhcpTry    = 3 * time.Second
	dhcpRounds = 2
	dhcpTime   = dhcpTry*dhcpRounds + time.Second
	minRenewal = 30 * time.Second
)

// keepLease asks for an IPv4 address until there is one, and renews it, until ctx ends. The pauses grow, because many networks
// have only IPv6 and an open client costs time (see client).
func (l *link) keepLease(ctx context.Context) {
	l.say("asks for an address")
	for pause := retryEvery; ; pause = min(2*pause, maxPause) {
		lease, err := l.request(ctx)
		if err == nil {
			err = l.apply(lease.ACK)
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			l.renew(ctx, lease)
			return
		}
		l.say("%v", err)
		l.grown()
		if !sleep(ctx, pause) {
			return
		}
	}
}

// client opens a DHCP client. It must not stay open while a dump is sent, because its packet socket gets a copy of every
// packet of the link.
func (l *link) client() (*nclient4.Client, error) {
	nl, err := netlink.LinkByIndex(l.index)
	if err != nil {
		return nil, err
	}
	return nclient4.New(l.name, nclient4.WithTimeout(dhcpTry), nclient4.WithRetry(dhcpRounds), nclient4.WithHWAddr(nl.Attrs().HardwareAddr))
}

func (l *link) request(ctx context.Context) (*nclient4.Lease, error) {
	c, err := l.client()
	if err != nil {
		return nil, fmt.Errorf("dhcp: %w", err)
	}
	defer func() { _ = c.Close() }()
	asked, cancel := context.WithTimeout(ctx, dhcpTime)
	defer cancel()
	lease, err := c.Request(asked, dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter,
		dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionDNSDomainSearchList,
		dhcpv4.OptionInterfaceMTU, dhcpv4.OptionClasslessStaticRoute))
	if err != nil {
		return nil, fmt.Errorf("no address from a DHCP server (%w) or router advertisement", err)
	}
	return lease, nil
}

// apply configures the address, routes and resolvers of a lease. An older address of another lease goes: the cable may lead
// into another network now.
func (l *link) apply(ack *dhcpv4.DHCPv4) error {
	p, err := leased(ack)
	if err != nil {
		return err
	}
	nl, err := netlink.LinkByIndex(l.index)
	if err != nil {
		return err
	}
	from := fmt.Sprintf("from DHCP server %s", ack.ServerIdentifier())
	for _, old := range l.otherLeases(p) {
		l.remove(old)
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 && l.m.Config.MTU == 0 {
		if err := netlink.LinkSetMTU(nl, int(mtu)); err != nil {
			l.m.Log("network: %s: mtu %d of the DHCP server: %v", l.name, mtu, err)
		}
	}
	if err := netlink.AddrReplace(nl, staticAddr(p)); err != nil {
		return fmt.Errorf("address %s: %w", p, err)
	}
	for _, r := range routesOf(ack) {
		if err := addRoute(l.index, r.dst, r.gw); err != nil {
			l.m.Log("network: %s: %v", l.name, err)
		}
	}
	l.learnDNS(ack)
	l.gained(p, from)
	return nil
}

// leased returns the address of a lease with the length of its network.
func leased(ack *dhcpv4.DHCPv4) (netip.Prefix, error) {
	mask := ack.SubnetMask()
	if len(mask) != net.IPv4len {
		mask = ack.YourIPAddr.DefaultMask()
	}
	ip, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || ip.IsUnspecified() || mask == nil {
		return netip.Prefix{}, fmt.Errorf("DHCP server %s granted no address", ack.ServerIdentifier())
	}
	ones, bits := mask.Size()
	if bits != ip.BitLen() {
		return netip.Prefix{}, fmt.Errorf("DHCP server %s granted %s with the mask %s", ack.ServerIdentifier(), ip, mask)
	}
	return netip.PrefixFrom(ip, ones), nil
}

// otherLeases lists the IPv4 addresses of the link except one.
func (l *link) otherLeases(p netip.Prefix) []netip.Prefix {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	var list []netip.Prefix
	for old := range l.from {
		if old.Addr().Is4() && old != p {
			list = append(list, old)
		}
	}
	return list
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

// renew renews the lease after half of its time, as RFC 2131 says, so that a dump that takes hours keeps its address.
func (l *link) renew(ctx context.Context, lease *nclient4.Lease) {
	for {
		if !sleep(ctx, max(lease.ACK.IPAddressLeaseTime(time.Hour)/2, minRenewal)) {
			return
		}
		next, err := l.renewOnce(ctx, lease)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.m.logUnlessRepeated("network: %s: lease not renewed: %v", l.name, err)
			continue
		}
		lease = next
	}
}

func (l *link) renewOnce(ctx context.Context, lease *nclient4.Lease) (*nclient4.Lease, error) {
	c, err := l.client()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	return c.Renew(ctx, lease)
}
