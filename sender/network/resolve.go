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
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	// maxSearch and maxServers are the limits of resolver libraries.
	maxSearch  = 6
	maxServers = 3
	// lookupTime bounds the lookup of a name over one link.
	lookupTime = 10 * time.Second
)

// errNoServer means that neither the configuration nor the link's lease has a resolver.
var errNoServer = errors.New("no DNS server")

// resolve returns the addresses of a name or an address.
func (l *link) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if list := l.m.known(host); len(list) > 0 {
		return list, nil
	}
	return l.lookup(ctx, host)
}

// known returns the addresses of a host for which no resolver is asked: it is an address, or a name of the configuration.
func (m *Manager) known(host string) []netip.Addr {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}
	}
	return m.Config.AddrsOf(host)
}

// lookup resolves a name over one link, by the resolvers of the configuration and of the link's own lease. The resolvers of
// another network may say that there is no such name.
func (l *link) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	l.m.mu.Lock()
	servers := slices.Concat(l.m.Config.DNS, slices.Concat(l.dns[:]...))
	l.m.mu.Unlock()
	if len(servers) == 0 {
		return nil, fmt.Errorf("%s: %w", host, errNoServer)
	}
	var asked atomic.Uint64
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		// The library would ask those of resolv.conf in turn, which are those of all links.
		server := servers[(asked.Add(1)-1)%uint64(len(servers))]
		return l.bound(&net.Dialer{}).DialContext(ctx, network, netip.AddrPortFrom(server, 53).String())
	}}
	found, err := r.LookupNetIP(ctx, "ip", host)
	for i := range found {
		found[i] = found[i].Unmap()
	}
	return found, err
}

// learnDNS notes the resolvers and search domains of a lease.
func (l *link) learnDNS(ack *dhcpv4.DHCPv4) {
	names := []string{ack.DomainName()}
	if labels := ack.DomainSearch(); labels != nil {
		names = labels.Labels
	}
	var servers []netip.Addr
	for _, ip := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && len(servers) < maxServers {
			servers = append(servers, a)
		}
	}
	l.learn(ofDHCP, servers, names)
}

// What names a link's resolvers.
const (
	ofDHCP = iota
	ofDHCPv6
	ofRouter
	resolverSources
)

// learn notes the resolvers that one source names for the link, and adds search domains.
func (l *link) learn(source int, servers []netip.Addr, names []string) {
	for i, a := range servers {
		if a.Is6() && a.IsLinkLocalUnicast() {
			servers[i] = a.WithZone(l.name)
		}
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if slices.Equal(l.dns[source], servers) && len(names) == 0 {
		return // routers repeat themselves
	}
	l.dns[source] = servers
	l.m.learnSearch(names)
}

// learnSearch adds search domains. m.mu must be locked.
func (m *Manager) learnSearch(names []string) {
	for _, name := range names {
		if plainDomain(name) && !slices.Contains(m.search, name) && len(m.search) < maxSearch {
			m.search = append(m.search, name)
		}
	}
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

// writeResolvConf writes the first resolvers, those of the configuration first, and the search domains. Resolver libraries
// read no more. m.mu must be locked once workers run.
func (m *Manager) writeResolvConf() error {
	servers := slices.Clone(m.Config.DNS)
	for _, l := range m.all() {
		for _, a := range slices.Concat(l.dns[:]...) {
			if !slices.Contains(servers, a) {
				servers = append(servers, a)
			}
		}
	}
	if m.ResolvConf == "" || len(servers) == 0 {
		return nil
	}
	var b strings.Builder
	if len(m.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(m.search, " "))
	}
	for _, a := range servers[:min(maxServers, len(servers))] {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	return os.WriteFile(m.ResolvConf, []byte(b.String()), 0o644)
}
