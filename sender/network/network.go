// Package network configures the network of a capture kernel: links, addresses and routes
// through netlink, IPv4 by DHCP (RFC 2131, with the classless routes of RFC 3442), IPv6 by
// the kernel's own handling of router advertisements, with their name servers (RFC 8106), and
// by DHCPv6 (RFC 8415) where these say so, a bond and VLANs of these links, and resolv.conf
// for the resolver.
//
// Links may appear late, and cables and DHCP servers may be slow. An address says nothing
// about what a link reaches. Therefore every suitable link stays a candidate for as long as
// the Manager is open: it is raised when it appears, configured when it has a carrier, and
// asked again after failures. Dial connects over the link that answers (see Dial).
//
// It needs CAP_NET_ADMIN and CAP_NET_RAW, and a kernel with CONFIG_PACKET. Wireless is
// not supported. A capture kernel that needs it configures the network itself and sets
// mode = "none". The DHCP library, and this package for DHCPv6, check what a server sends.
// Its values become addresses, routes, resolvers, search domains and an MTU, nothing else.
// Up is called once; the other methods are safe for concurrent use after that.
package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/corehaul/corehaul/sender/config"
)

const (
	// poll is the time between two looks at links, carriers and addresses of router advertisements.
	poll = 250 * time.Millisecond
	// retryEvery is the first pause after a failure, maxPause the longest.
	retryEvery = time.Second
	maxPause   = 30 * time.Second
	// noteEvery is the time before the same line is logged again.
	noteEvery = 10 * time.Second
	// firstNote is how long Up waits before it says for what.
	firstNote = 3 * time.Second
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
	// Again, unless nil, is called when a link got an address, so that a target that did not answer is tried again.
	Again func()

	mu      sync.Mutex
	noted   map[string]time.Time
	links   map[int]*link
	changed chan struct{} // closed and replaced with each change of a link
	absent  error         // why there is no suitable link
	search  []string
	memory  memory
	wg      sync.WaitGroup
	stop    context.CancelFunc
}

// Up waits until a link has an address. If ctx ends before that, it returns what was tried. Links that get a carrier or an
// address later are configured until Close, and leases are renewed.
func (m *Manager) Up(ctx context.Context) error {
	m.noted, m.links, m.changed = map[string]time.Time{}, map[int]*link{}, make(chan struct{})
	m.memory = newMemory()
	if err := m.writeResolvConf(); err != nil {
		m.Log("network: %v", err)
	}
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	if len(m.Config.FenceKdump) > 0 {
		m.wg.Go(func() { m.fence(background) })
	}
	if m.Config.Mode == "none" {
		return nil
	}
	m.answerOnOwnLinks()
	if m.Config.Mode == "dhcp" {
		if err := m.hearAdvertisements(background); err != nil {
			m.Log("network: no name servers of router advertisements: %v", err)
		}
	}
	m.look(background)
	m.wg.Go(func() { m.supervise(background) })
	return m.await(ctx)
}

// answerOnOwnLinks makes each link answer ARP requests for its own addresses only. Otherwise, of two links in one subnet,
// either may get the packets of the other, and Dial binds its connections to one.
func (m *Manager) answerOnOwnLinks() {
	for name, value := range map[string]string{"arp_ignore": "1", "arp_announce": "2"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/"+name, []byte(value), 0); err != nil {
			m.Log("network: %v", err)
		}
	}
}

// await waits until a link can be used, and says from time to time what it waits for.
func (m *Manager) await(ctx context.Context) error {
	note := time.After(firstNote)
	for {
		m.mu.Lock()
		changed, ready, err := m.changed, m.ready(), m.absent
		m.mu.Unlock()
		if len(ready) > 0 {
			return nil
		}
		select {
		case <-changed:
		case <-note:
			note = time.After(noteEvery)
			m.Log("network: waiting: %s", m.tried())
			m.diagnose()
		case <-ctx.Done():
			if err == nil {
				err = errors.New(m.tried())
			}
			m.diagnose()
			return fmt.Errorf("network: %w", err)
		}
	}
}

// Close stops the work on links. Addresses stay.
func (m *Manager) Close() {
	if m.stop != nil {
		m.stop()
	}
	m.wg.Wait()
}

// supervise looks for links until ctx ends.
func (m *Manager) supervise(ctx context.Context) {
	for sleep(ctx, poll) {
		m.look(ctx)
	}
}

// look gives each suitable link a worker, also those that appear later, and takes it from links that are gone.
func (m *Manager) look(ctx context.Context) {
	if err := m.assemble(); err != nil {
		m.logOnce("network: %v; trying again", err)
	}
	found, err := m.suitable()
	m.mu.Lock()
	if fmt.Sprint(m.absent) != fmt.Sprint(err) {
		m.absent = err
		m.wake()
	}
	m.mu.Unlock()
	if err != nil {
		m.logOnce("network: %v; waiting for one", err)
	}
	for _, l := range found {
		m.adopt(ctx, l)
	}
	m.forget(found)
}

// adopt starts the worker of a new link.
func (m *Manager) adopt(ctx context.Context, nl netlink.Link) {
	a := nl.Attrs()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.links[a.Index] != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &link{m: m, index: a.Index, name: a.Name, status: "not up yet", young: true, cancel: cancel}
	m.links[a.Index] = l
	m.wg.Go(func() { l.run(ctx) })
	m.wake()
}

// forget ends the workers of links that are gone.
func (m *Manager) forget(found []netlink.Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for index, l := range m.links {
		if !slices.ContainsFunc(found, func(nl netlink.Link) bool { return nl.Attrs().Index == index }) {
			l.cancel()
			delete(m.links, index)
			m.wake()
		}
	}
}

// wake tells those who wait that a link changed. m.mu must be locked.
func (m *Manager) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// all returns the links by their indexes. m.mu must be locked.
func (m *Manager) all() []*link {
	var list []*link
	for _, l := range m.links {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b *link) int { return cmp.Compare(a.index, b.index) })
	return list
}

// ready returns the links that have a carrier and an address. m.mu must be locked.
func (m *Manager) ready() []*link {
	return slices.DeleteFunc(m.all(), func(l *link) bool { return !l.carrier || l.addrs() == "" })
}

// tried says for each link what came of it.
func (m *Manager) tried() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []string
	for _, l := range m.all() {
		list = append(list, l.name+": "+l.said())
	}
	if m.absent != nil {
		list = append(list, m.absent.Error())
	}
	return strings.Join(list, "; ")
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

// logOnce logs a line that it has not logged before.
func (m *Manager) logOnce(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	m.mu.Lock()
	_, known := m.noted[line]
	m.noted[line] = time.Now()
	m.mu.Unlock()
	if !known {
		m.Log("%s", line)
	}
}
