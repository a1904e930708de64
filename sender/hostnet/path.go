package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/sender/config"
)

// A Path is the way to an address.
type Path struct {
	// Target is the address.
	Target netip.Addr
	// Interface is that of the route. Gateway is the router, the zero Addr if the target is on the link.
	Interface string
	Gateway   netip.Addr
	// Default is the router of the interface's default route of the target's family, or the zero Addr.
	Default netip.Addr
	// Source is the address of this machine that the target sees, with the length of its network.
	Source netip.Prefix
	// Dynamic means that Source has a limited lifetime: it came from DHCP or a router advertisement.
	Dynamic bool
	// MTU is that of Interface.
	MTU int
	// Layers are what lies below Interface.
	Layers
}

// PathTo asks the kernel for the way to an address. sys is where sysfs is mounted.
func PathTo(sys string, target netip.Addr) (*Path, error) {
	routes, err := netlink.RouteGet(target.AsSlice())
	if err != nil {
		return nil, fmt.Errorf("route to %s: %w", target, err)
	}
	if len(routes) == 0 {
		return nil, fmt.Errorf("route to %s: the kernel names none", target)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list of interfaces: %w", err)
	}
	p := &Path{Target: target}
	index := routes[0].LinkIndex
	if p.Layers, err = layersBelow(sys, links, index); err != nil {
		return nil, fmt.Errorf("route to %s: %w", target, err)
	}
	l := links[indexOf(links, index)].Attrs()
	p.Interface, p.MTU = l.Name, l.MTU
	p.Gateway = addrOf(routes[0].Gw)
	return p, p.addSource(l, addrOf(routes[0].Src))
}

// PathToHost asks for the way to a host, a name or an address. Of several addresses of a name, it takes the first that has a way.
func PathToHost(ctx context.Context, sys, host string) (*Path, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		p, err := PathTo(sys, a.Unmap())
		if err == nil {
			return p, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// addSource looks for the source address and the default route on the interface of the path.
func (p *Path) addSource(l *netlink.LinkAttrs, src netip.Addr) error {
	nl := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}
	family := netlink.FAMILY_V4
	if p.Target.Is6() {
		family = netlink.FAMILY_V6
	}
	addrs, err := netlink.AddrList(nl, family)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", l.Name, err)
	}
	for _, a := range addrs {
		if ip := addrOf(a.IP); ip == src {
			ones, _ := a.Mask.Size()
			p.Source, p.Dynamic = netip.PrefixFrom(ip, ones), a.Flags&unix.IFA_F_PERMANENT == 0
		}
	}
	if !p.Source.IsValid() {
		return fmt.Errorf("route to %s: its source %s is no address of %s", p.Target, src, l.Name)
	}
	routes, err := netlink.RouteList(nl, family)
	if err != nil {
		return fmt.Errorf("routes of %s: %w", l.Name, err)
	}
	for _, r := range routes {
		if r.Gw != nil && isDefault(r.Dst) {
			p.Default = addrOf(r.Gw)
			break // the kernel lists the best one first
		}
	}
	return nil
}

func isDefault(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	ones, _ := dst.Mask.Size()
	return ones == 0
}

// addrOf returns the zero Addr for no address.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// isLease reports whether a path has a lease on a card without a VLAN or a bond. A capture kernel asks for such leases on all cards.
func (p *Path) isLease() bool { return p.Dynamic && p.VLAN == 0 && len(p.Bond.Ports) == 0 }

// Fits reports whether a capture kernel can have the ways p and q at once. It has a VLAN, a bond or static addresses on one interface
// only.
func (p *Path) Fits(q *Path) bool {
	return p.isLease() && q.isLease() || p.Interface == q.Interface && p.Dynamic == q.Dynamic
}

// Network returns the configuration of a capture kernel that reaches the targets of all paths, of which the first Fits the others. Cards
// have MAC addresses in it, because capture kernels give other names. dns are the resolvers, for targets that have names; a lease
// brings its own.
func Network(paths []*Path, dns []netip.Addr) config.Network {
	n := config.Network{Mode: "dhcp"}
	if len(paths) == 0 {
		return n
	}
	first := paths[0]
	if first.isLease() {
		return n
	}
	n.VLAN, n.Bond = first.VLAN, first.Bond
	if len(first.Bond.Ports) == 0 {
		n.Interface = first.Cards[0].MAC
	}
	if first.MTU != ethernetMTU {
		n.MTU = first.MTU
	}
	if first.Dynamic {
		return n
	}
	n.Mode, n.DNS = "static", dns
	for _, p := range paths {
		p.addTo(&n)
	}
	return n
}

// ethernetMTU is the usual size of packets, in bytes.
const ethernetMTU = 1500

// addTo adds the static address and routes of a path.
func (p *Path) addTo(n *config.Network) {
	n.Address = appendNew(n.Address, p.Source)
	if p.Default.IsValid() {
		n.Gateway = appendNew(n.Gateway, p.Default)
	}
	if p.Gateway.IsValid() && p.Gateway != p.Default {
		n.Routes = appendNew(n.Routes, config.Route{To: netip.PrefixFrom(p.Target, p.Target.BitLen()), Via: p.Gateway})
	}
}

func appendNew[T comparable](list []T, v T) []T {
	for _, old := range list {
		if old == v {
			return list
		}
	}
	return append(list, v)
}
