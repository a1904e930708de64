package network

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// slaacPause is the time between two looks once the first attempt at an address has ended.
const slaacPause = 2 * time.Second

// watchSLAAC follows the IPv6 addresses that the kernel makes of router advertisements, and the one of DHCPv6.
func (l *link) watchSLAAC(ctx context.Context) {
	var had []netip.Prefix
	for {
		now := globalIPv6(l.index)
		for _, p := range now {
			l.gained(p, l.source6(p))
		}
		for _, p := range had {
			if !slices.Contains(now, p) {
				l.lost(p)
			}
		}
		had = now
		l.m.mu.Lock()
		pause := slaacPause
		if l.young {
			pause = poll
		}
		l.m.mu.Unlock()
		if !sleep(ctx, pause) {
			return
		}
	}
}

// source6 names what gave an IPv6 address.
func (l *link) source6(p netip.Prefix) string {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if p == l.lease6 {
		return l.lease6From
	}
	return "by router advertisement"
}

// globalIPv6 lists the link's IPv6 addresses if it has a default route.
func globalIPv6(index int) []netip.Prefix {
	nl := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	routes, err := netlink.RouteList(nl, netlink.FAMILY_V6)
	if err != nil || !slices.ContainsFunc(routes, isDefault) {
		return nil
	}
	addrs, err := netlink.AddrList(nl, netlink.FAMILY_V6)
	if err != nil {
		return nil
	}
	var list []netip.Prefix
	for _, a := range addrs {
		if p := prefixOf(a.IPNet); usable(a) && p.IsValid() {
			list = append(list, p)
		}
	}
	return list
}
