package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// link is a candidate: an interface that may lead to a target. m.mu guards what is below it.
type link struct {
	m      *Manager
	index  int
	name   string
	cancel context.CancelFunc

	carrier bool
	// young means that the first attempt at an address has not ended, so that it is worth waiting for.
	young bool
	// status says what the link lacks, in words for people.
	status string
	// status6 begins with a semicolon and says why DHCPv6 has given nothing, if it was asked.
	status6 string
	// from names for each address what gave it.
	from map[netip.Prefix]string
	// dns has the resolvers of each source.
	dns [resolverSources][]netip.Addr
	// lease6 is the address of a DHCPv6 server, and lease6From names that.
	lease6     netip.Prefix
	lease6From string
}

// suitable returns the interfaces that may lead to a target.
func (m *Manager) suitable() ([]netlink.Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list of interfaces: %w", err)
	}
	var found []netlink.Link
	for _, l := range all {
		switch {
		case !m.carries(l):
		case m.Config.VLAN == 0:
			found = append(found, l)
		default:
			i := slices.IndexFunc(all, func(v netlink.Link) bool { return m.isVLANOf(v, l.Attrs().Index) })
			if i >= 0 {
				found = append(found, all[i])
			}
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

func names(links []netlink.Link) string {
	var s []string
	for _, l := range links {
		s = append(s, l.Attrs().Name)
	}
	return strings.Join(s, ", ")
}

// addrs lists the link's addresses and what gave them. m.mu must be locked.
func (l *link) addrs() string {
	var list []string
	for p, from := range l.from {
		list = append(list, p.String()+" "+from)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// said describes the link for people. m.mu must be locked.
func (l *link) said() string {
	addrs := l.addrs()
	switch {
	case !l.carrier && addrs == "":
		return l.status
	case addrs == "":
		return l.status + l.status6
	case !l.carrier:
		return "no carrier any more (" + addrs + ")"
	}
	return addrs
}

// say notes what the link lacks.
func (l *link) say(format string, args ...any) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if status := fmt.Sprintf(format, args...); status != l.status {
		l.status = status
		l.m.wake()
	}
}

// grown notes that the first attempt at an address has ended.
func (l *link) grown() {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.young {
		l.young = false
		l.m.wake()
	}
}

// gained notes an address. It reports whether it is new.
func (l *link) gained(p netip.Prefix, from string) bool {
	l.m.mu.Lock()
	fresh := l.from[p] != from
	if l.from == nil {
		l.from = map[netip.Prefix]string{}
	}
	l.from[p] = from
	l.young = false
	l.m.wake()
	l.m.mu.Unlock()
	if fresh {
		l.m.Log("network: %s has %s %s", l.name, p, from)
		if l.m.Again != nil {
			l.m.Again()
		}
	}
	return fresh
}

// lost notes that an address is gone.
func (l *link) lost(p netip.Prefix) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.from, p)
	l.m.wake()
}

// run works on the link until ctx ends: it raises it, follows its carrier and, while there is one, keeps its addresses.
func (l *link) run(ctx context.Context) {
	if !l.raiseStubbornly(ctx) {
		return
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	work := func() {} // ends the work of the last carrier
	defer func() { work() }()
	for up, had := false, false; ; {
		now, err := hasCarrier(l.index)
		switch {
		case err != nil:
			now = up // the interface is going, and its worker ends soon
		case now && !up:
			if had {
				l.m.Log("network: %s has a carrier again", l.name)
			}
			work = l.start(ctx)
			had = true
		case !now && up:
			work()
			l.m.Log("network: %s has lost its carrier", l.name)
		}
		up = now
		l.setCarrier(up)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// setCarrier notes the carrier. A link without one is not worth waiting for.
func (l *link) setCarrier(up bool) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.carrier == up && up {
		return
	}
	if !up {
		l.status = "no carrier"
	}
	if l.carrier != up {
		l.carrier = up
		l.m.wake()
	}
}

// start begins to get addresses, and returns a function that ends that.
func (l *link) start(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.configure(ctx)
	}()
	return func() { cancel(); <-done }
}

// raiseStubbornly raises the link. It returns false when ctx has ended.
func (l *link) raiseStubbornly(ctx context.Context) bool {
	for pause := retryEvery; ; pause = min(2*pause, maxPause) {
		err := l.m.raiseIndex(l.index)
		if err == nil {
			return true
		}
		l.say("%v", err)
		l.grown()
		l.m.logOnce("network: %s: %v; trying again", l.name, err)
		l.m.diagnose() // drivers ask for firmware when the interface is raised
		if !sleep(ctx, pause) {
			return false
		}
	}
}

// sleep returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (m *Manager) raiseIndex(index int) error {
	nl, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	return m.raise(nl)
}

func (m *Manager) raise(nl netlink.Link) error {
	if mtu := m.Config.MTU; mtu != 0 && nl.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(nl, mtu); err != nil {
			return fmt.Errorf("mtu %d: %w", mtu, err)
		}
	}
	if nl.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := netlink.LinkSetUp(nl); err != nil {
		return fmt.Errorf("the driver does not start it: %w", err)
	}
	return nil
}

// hasCarrier asks the kernel. A driver that never reports a carrier (operstate unknown) counts as connected.
func hasCarrier(index int) (bool, error) {
	nl, err := netlink.LinkByIndex(index)
	if err != nil {
		return false, err
	}
	return nl.Attrs().RawFlags&unix.IFF_LOWER_UP != 0, nil
}
