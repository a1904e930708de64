package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// configure gets addresses for a link that has a carrier, until ctx ends.
func (l *link) configure(ctx context.Context) {
	if l.m.Config.Mode == "static" {
		l.keepStatic(ctx)
		return
	}
	var others sync.WaitGroup
	others.Go(func() { l.watchSLAAC(ctx) })
	others.Go(func() { l.askDHCPv6(ctx) })
	l.keepLease(ctx)
	others.Wait()
}

// keepStatic gives the configured addresses to the link while it is the one that has them. Two links with the same address
// would disturb each other.
func (l *link) keepStatic(ctx context.Context) {
	for {
		changed, mine, has := l.claim()
		switch {
		case mine && !has:
			if err := l.addStatic(); err != nil {
				l.say("%v", err)
				l.m.logUnlessRepeated("network: %s: %v; trying again", l.name, err)
				if !sleep(ctx, retryEvery) {
					return
				}
				continue
			}
		case !mine && has:
			l.removeStatic()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// claim makes the link the owner of the static addresses if the owner has no carrier. It reports whether the link is the
// owner, and whether it has the addresses.
func (l *link) claim() (changed <-chan struct{}, mine, has bool) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if o := l.m.links[l.m.memory.owner]; o == nil || !o.carrier && o != l {
		l.m.memory.owner = l.index
	}
	mine = l.m.memory.owner == l.index
	if !mine {
		l.status = "without the static addresses, which another link has"
		l.young = false
	}
	return l.m.changed, mine, len(l.from) > 0
}

// passOn gives the static addresses to the next link with a carrier, after nothing answered over the one that has them.
func (m *Manager) passOn() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Config.Mode != "static" {
		return
	}
	var first, next *link
	for _, l := range m.all() {
		if !l.carrier || l.index == m.memory.owner {
			continue
		}
		if first == nil {
			first = l
		}
		if next == nil && l.index > m.memory.owner {
			next = l
		}
	}
	if next == nil {
		next = first
	}
	if next != nil {
		m.memory.owner = next.index
		m.wake()
	}
}

func (l *link) addStatic() error {
	nl, err := netlink.LinkByIndex(l.index)
	if err != nil {
		return err
	}
	for _, p := range l.m.Config.Address {
		if err := netlink.AddrReplace(nl, staticAddr(p)); err != nil {
			return fmt.Errorf("address %s: %w", p, err)
		}
	}
	for _, gw := range l.m.Config.Gateway {
		if err := addRoute(l.index, netip.Prefix{}, gw); err != nil {
			return err
		}
	}
	for _, r := range l.m.Config.Routes {
		if err := addRoute(l.index, r.To, r.Via); err != nil {
			return err
		}
	}
	for _, p := range l.m.Config.Address {
		l.gained(p, "by configuration")
	}
	return nil
}

// removeStatic also removes the routes of the addresses, as the kernel does.
func (l *link) removeStatic() {
	for _, p := range l.m.Config.Address {
		l.remove(p)
	}
}

// remove takes an address from the link.
func (l *link) remove(p netip.Prefix) {
	nl, err := netlink.LinkByIndex(l.index)
	if err == nil {
		err = netlink.AddrDel(nl, staticAddr(p))
	}
	if err != nil {
		l.m.Log("network: %s: remove %s: %v", l.name, p, err)
	}
	l.lost(p)
}

func staticAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		// Duplicate address detection would delay the address by seconds.
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}
