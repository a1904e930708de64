package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeMetric is the metric of a route over the interface 0. Two links may have routes to the same network, such as the
// default route. With one metric, the kernel would keep only the last one.
const routeMetric = 100

// addRoute adds a route to dst over gw, a default route if dst is the zero Prefix. The router may be outside of the link's
// networks, as at some cloud providers. The zero gw means the link itself.
func addRoute(index int, dst netip.Prefix, gw netip.Addr) error {
	r := &netlink.Route{LinkIndex: index, Priority: routeMetric + index}
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
		return fmt.Errorf("route over %s: %w", gw, err)
	}
	return nil
}

// Results of routeTo that are no lengths of a prefix.
const (
	noRoute   = -1
	noAddress = -2
)

// routeTo returns the length in bits of the longest prefix of the link's routes to an address, noRoute, or noAddress if the link
// has no address of that family.
func routeTo(index int, dst netip.Addr) int {
	family := netlink.FAMILY_V4
	if dst.Is6() {
		family = netlink.FAMILY_V6
	}
	nl := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	if zone := dst.Zone(); zone != "" {
		return routeInZone(index, zone)
	}
	if !hasAddress(nl, family) {
		return noAddress
	}
	// Without a filter, the library asks the kernel's main table only, which has all routes of a capture kernel.
	routes, err := netlink.RouteList(nl, family)
	if err != nil {
		return noRoute
	}
	longest := noRoute
	for _, r := range routes {
		if p := prefixOf(r.Dst); !p.IsValid() || p.Contains(dst) {
			longest = max(longest, p.Bits(), 0)
		}
	}
	return longest
}

// routeInZone is routeTo for an address that holds on one link, which its zone names.
func routeInZone(index int, zone string) int {
	nl, err := netlink.LinkByName(zone)
	if err != nil || nl.Attrs().Index != index {
		return noAddress
	}
	return 128
}

// hasAddress reports whether a link has an address that may be a source, that is, of more than the link.
func hasAddress(nl netlink.Link, family int) bool {
	addrs, err := netlink.AddrList(nl, family)
	return err == nil && slices.ContainsFunc(addrs, usable)
}

func usable(a netlink.Addr) bool {
	return a.IP.IsGlobalUnicast() && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0
}

// prefixOf returns the zero Prefix, which no address is in, for nil.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ip := n.IP
	if v4 := ip.To4(); v4 != nil && len(n.Mask) == net.IPv4len {
		ip = v4
	}
	a, ok := netip.AddrFromSlice(ip)
	ones, _ := n.Mask.Size()
	if !ok {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, ones)
}

// isDefault reports whether a route leads to everywhere over a router.
func isDefault(r netlink.Route) bool {
	return r.Gw != nil && prefixOf(r.Dst).Bits() <= 0
}
