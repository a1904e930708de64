package network

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
)

// times6 says when a message of DHCPv6 is sent again (RFC 8415, section 15).
type times6 struct {
	first, longest time.Duration
	count          int // of messages, 0 for no limit
}

// Times of RFC 8415, section 7.6. A client that gets no answer to a Solicit would ask once in an hour at last. A capture kernel does not
// have that time, and asks as often as its DHCP client of IPv4. It sends the first one at once: a router advertisement, whose time is
// random, came before.
var (
	solicitTimes = times6{time.Second, maxPause, 6}
	requestTimes = times6{time.Second, maxPause, 10}
	renewTimes   = times6{10 * time.Second, 10 * time.Minute, 0}
	informTimes  = times6{time.Second, maxPause, 6}
)

// next returns the time to wait after a message, given the one before, 0 for none. chance is from 0 to 1.
func (t times6) next(last time.Duration, kind byte, chance float64) time.Duration {
	random := 0.2*chance - 0.1
	if kind == solicit6 && last == 0 {
		random = 0.1 * chance // other servers have a second at least to offer something better
	}
	spread := func(d time.Duration) time.Duration { return d + time.Duration(random*float64(d)) }
	switch {
	case last == 0:
		return spread(t.first)
	case last+spread(last) > t.longest:
		return spread(t.longest)
	}
	return last + spread(last)
}

// socket6 is the way to the DHCPv6 servers of a link.
type socket6 interface {
	send(packet []byte) error
	// receive waits for a packet. The error is os.ErrDeadlineExceeded when the time has come.
	receive(until time.Time) (packet []byte, from netip.Addr, err error)
	Close() error
}

// errSilence means that no server answered.
var errSilence = errors.New("no DHCPv6 server answers, and router advertisements say that there is one")

// client6 asks the DHCPv6 servers of one link. Like the client of IPv4, it has its socket open only while it asks.
type client6 struct {
	id   id6
	open func(context.Context) (socket6, error)
	// failed is told why a message has no good answer yet.
	failed func(error)
}

// bind gets an address.
func (c *client6) bind(ctx context.Context) (*lease6, error) {
	offer, err := c.ask(ctx, solicit6, solicitTimes, time.Time{}, nil)
	if err != nil {
		return nil, err
	}
	return c.ask(ctx, request6, requestTimes, time.Time{}, offer)
}

// prolong keeps an address that was granted at a time: when half of its time is over, it asks the server that has granted it, and later
// all servers.
func (c *client6) prolong(ctx context.Context, lease *lease6, granted time.Time) (*lease6, error) {
	t1, t2 := lease.renewal()
	sleep(ctx, time.Until(granted.Add(t1)))
	next, err := c.ask(ctx, renew6, renewTimes, granted.Add(t2), lease)
	if err != nil {
		next, err = c.ask(ctx, rebind6, renewTimes, granted.Add(lease.valid), lease)
	}
	return next, err
}

// ask sends a message, which is about a lease unless that is nil, until it is answered, its times are over, or ctx ends. A zero end means
// no other limit.
func (c *client6) ask(ctx context.Context, kind byte, t times6, end time.Time, lease *lease6) (*lease6, error) {
	socket, err := c.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("DHCPv6: %w", err)
	}
	defer func() { _ = socket.Close() }()
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })()
	var transaction [3]byte
	_, _ = rand.Read(transaction[:]) // it never fails
	began, wait, why := time.Now(), time.Duration(0), errSilence
	for n := 0; (t.count == 0 || n < t.count) && (end.IsZero() || time.Now().Before(end)); n++ {
		if err := socket.send(message6(kind, transaction, c.id, time.Since(began), lease)); err != nil {
			why = fmt.Errorf("DHCPv6: %w", err)
		}
		wait = t.next(wait, kind, mathrand.Float64())
		until := time.Now().Add(wait)
		if !end.IsZero() && end.Before(until) {
			until = end
		}
		got, err := c.await(socket, kind, transaction, until)
		if got != nil {
			return got, nil
		}
		if err != nil {
			why = err
		}
		c.failed(why)
		if _, refused := errors.AsType[*status6Error](err); refused && (kind == request6 || kind == renew6) {
			break // by the one server that was asked
		}
		if !sleep(ctx, time.Until(until)) {
			return nil, ctx.Err()
		}
	}
	return nil, why
}

// await returns the best answer that comes until a time: of Advertise messages the one with the highest preference, of others the first.
// If there is none, the error is that of the last one which was no good, or nil.
func (c *client6) await(socket socket6, kind byte, transaction [3]byte, until time.Time) (best *lease6, why error) {
	answer := byte(reply6)
	if kind == solicit6 {
		answer = advertise6
	}
	for {
		packet, from, err := socket.receive(until)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return best, why
		}
		if err != nil {
			return best, fmt.Errorf("DHCPv6: %w", err)
		}
		got, err := answer6(packet, answer, transaction, c.id)
		if err == nil && kind != information6 && !got.addr.IsValid() {
			err = errNoAddress6
		}
		switch {
		case errors.Is(err, errNotOurs):
		case err != nil:
			why = fmt.Errorf("DHCPv6 server %s: %w", from, err)
			if kind == request6 || kind == renew6 {
				return nil, why
			}
		case best == nil || got.preference > best.preference:
			best = got
			best.from = from
		}
		if best != nil && (kind != solicit6 || best.preference == highestPreference6) {
			return best, nil
		}
	}
}

// renewal returns the times after which the lease is renewed and rebound, the client's own if the server leaves them to it (RFC 8415,
// section 14.2).
func (l *lease6) renewal() (t1, t2 time.Duration) {
	t1, t2 = l.t1, l.t2
	if t1 == 0 {
		t1 = l.preferred / 2
	}
	t1 = max(t1, minRenewal)
	if t2 == 0 {
		t2 = l.preferred / 5 * 4
	}
	return t1, max(t2, t1)
}

// linkSocket6 is the socket6 of a link.
type linkSocket6 struct {
	*net.UDPConn
	servers *net.UDPAddr
	packet  [1 << 11]byte
}

// Ports of clients and servers, and the group of servers (RFC 8415, sections 7.1 and 7.2).
const (
	clientPort6 = 546
	serverPort6 = 547
	servers6    = "ff02::1:2"
)

func (l *link) openSocket6(ctx context.Context) (socket6, error) {
	lc := net.ListenConfig{Control: l.bound(&net.Dialer{}).Control}
	conn, err := lc.ListenPacket(ctx, "udp6", fmt.Sprintf("[::]:%d", clientPort6))
	if err != nil {
		return nil, err
	}
	return &linkSocket6{UDPConn: conn.(*net.UDPConn), servers: &net.UDPAddr{IP: net.ParseIP(servers6), Port: serverPort6, Zone: l.name}}, nil
}

func (s *linkSocket6) send(packet []byte) error {
	_, err := s.WriteTo(packet, s.servers)
	return err
}

func (s *linkSocket6) receive(until time.Time) ([]byte, netip.Addr, error) {
	if err := s.SetReadDeadline(until); err != nil {
		return nil, netip.Addr{}, err
	}
	n, from, err := s.ReadFromUDPAddrPort(s.packet[:])
	return s.packet[:n], from.Addr().WithZone(""), err
}

// askDHCPv6 asks DHCPv6 servers for what router advertisements say that they have, until ctx ends: an address, which it renews, or
// else name servers.
func (l *link) askDHCPv6(ctx context.Context) {
	l.m.mu.Lock()
	l.status6 = "" // of another network
	l.m.mu.Unlock()
	for informed := false; ; {
		managed, other := advertisedFlags(l.index)
		var err error
		switch {
		case managed:
			err = l.keepLease6(ctx)
		case other && !informed:
			err = l.inform6(ctx)
			informed = err == nil
		}
		pause := poll
		if managed || other {
			pause = slaacPause
		}
		if err != nil && ctx.Err() == nil {
			l.say6(err)
			l.m.logUnlessRepeated("network: %s: %v", l.name, err)
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

func (l *link) client6() (*client6, error) {
	nl, err := netlink.LinkByIndex(l.index)
	if err != nil {
		return nil, err
	}
	return &client6{newID6(nl.Attrs().HardwareAddr), l.openSocket6, l.say6}, nil
}

// say6 notes why DHCPv6 has given nothing yet.
func (l *link) say6(err error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.status6 = "; " + err.Error()
	l.m.wake()
}

// keepLease6 gets an address and renews it, until that fails.
func (l *link) keepLease6(ctx context.Context) error {
	c, err := l.client6()
	if err != nil {
		return err
	}
	lease, err := c.bind(ctx)
	for err == nil {
		granted := time.Now()
		if err = l.apply6(lease); err == nil {
			lease, err = c.prolong(ctx, lease, granted)
		}
	}
	return err
}

// inform6 asks for name servers alone.
func (l *link) inform6(ctx context.Context) error {
	c, err := l.client6()
	if err != nil {
		return err
	}
	got, err := c.ask(ctx, information6, informTimes, time.Time{}, nil)
	if err == nil {
		l.learn(ofDHCPv6, got.dns, got.search)
	}
	return err
}

// apply6 configures the address and name servers of a lease. Routes come from router advertisements. An older address goes: the cable may
// lead into another network now. watchSLAAC takes the address for usable.
func (l *link) apply6(lease *lease6) error {
	nl, err := netlink.LinkByIndex(l.index)
	if err != nil {
		return err
	}
	p := netip.PrefixFrom(lease.addr, lease.addr.BitLen())
	l.m.mu.Lock()
	old := l.lease6
	l.lease6, l.lease6From = p, fmt.Sprintf("from DHCPv6 server %s", lease.from)
	l.m.mu.Unlock()
	if old.IsValid() && old != p {
		l.remove(old)
	}
	a := staticAddr(p)
	a.PreferedLft, a.ValidLft = int(lease.preferred/time.Second), int(lease.valid/time.Second)
	if err := netlink.AddrReplace(nl, a); err != nil {
		return fmt.Errorf("address %s: %w", p, err)
	}
	l.learn(ofDHCPv6, lease.dns, lease.search)
	return nil
}
