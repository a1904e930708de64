package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/corehaul/corehaul/sender/config"
)

const (
	target     = "203.0.113.9"
	targetPort = target + ":7443"
)

// via dials and returns the local address, without its port.
func via(ctx context.Context, t *testing.T, m *Manager, addr string) string {
	t.Helper()
	nc, err := m.Dial(ctx, &net.Dialer{}, "tcp", addr)
	if err != nil {
		t.Fatalf("%s: %v", addr, err)
	}
	defer func() { _ = nc.Close() }()
	host, _, err := net.SplitHostPort(nc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// TestDialOverTheLinkThatAnswers: the first link gets a lease and reaches nothing. The second one has no carrier before a
// connection is under way.
func TestDialOverTheLinkThatAnswers(t *testing.T) {
	wrong, right := elsewhere(t), elsewhere(t)
	wrong.cable(t, "wra", "cla", "10.1.0.1/24")
	wrong.grant(t, "wra", lease{self: "10.1.0.1", client: "10.1.0.7", router: "10.1.0.1"})
	wrong.up(t, "wra")
	right.cable(t, "rib", "clb", "10.2.0.1/24")
	right.give(t, "lo", target+"/32")
	right.listen(t, targetPort)
	var again atomic.Int64
	m := &Manager{Config: config.Network{Mode: "dhcp"}, Again: func() { again.Add(1) }}
	log, ctx := start(t, m)

	// The wrong link drops the packets. When there is a third SYN, after three seconds, no other link is left to try.
	syns := wrong.syns(t, "wra")
	var from string
	done := make(chan struct{})
	go func() {
		defer close(done)
		from = via(ctx, t, m, targetPort)
	}()
	for range 3 {
		select {
		case <-syns:
		case <-ctx.Done():
			t.Fatalf("no third SYN over the wrong link; log %q", log.lines)
		}
	}
	right.grant(t, "rib", lease{self: "10.2.0.1", client: "10.2.0.7", router: "10.2.0.1"})
	right.up(t, "rib")
	<-done
	if from != "10.2.0.7" {
		t.Errorf("connected from %s, want 10.2.0.7; log %q", from, log.lines)
	}
	for again.Load() != 2 { // once for each lease
		if !sleep(ctx, time.Millisecond) {
			t.Fatalf("told %d times to try again, want once for each lease", again.Load())
		}
	}
	// Now it knows.
	if from := via(ctx, t, m, targetPort); from != "10.2.0.7" {
		t.Errorf("then connected from %s", from)
	}
	// Both default routes stay.
	for _, gw := range []string{"10.1.0.1", "10.2.0.1"} {
		routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
		found := false
		for _, r := range routes {
			found = found || r.Gw.String() == gw
		}
		if err != nil || !found {
			t.Errorf("no route over %s in %v (%v)", gw, routes, err)
		}
	}
}

// TestDialInOneSubnet has two links with addresses of the same network, and a target in it that only the second one reaches.
func TestDialInOneSubnet(t *testing.T) {
	wrong, right := elsewhere(t), elsewhere(t)
	wrong.cable(t, "wrc", "clc", "10.3.0.2/24")
	wrong.grant(t, "wrc", lease{self: "10.3.0.2", client: "10.3.0.7"})
	right.cable(t, "rid", "cld", "10.3.0.1/24")
	right.grant(t, "rid", lease{self: "10.3.0.1", client: "10.3.0.8"})
	right.listen(t, "10.3.0.1:7443")
	wrong.up(t, "wrc")
	right.up(t, "rid")
	m := &Manager{Config: config.Network{Mode: "dhcp"}}
	log, ctx := start(t, m)
	log.await(ctx, t, "10.3.0.7/24 from")
	log.await(ctx, t, "10.3.0.8/24 from")
	if from := via(ctx, t, m, "10.3.0.1:7443"); from != "10.3.0.8" {
		t.Errorf("connected from %s; log %q", from, log.lines)
	}
}

// TestDialPrefersTheRoute: of two links that both reach the target, that with the more specific route is used, whichever had
// its lease first. After a doubt it is the other one.
func TestDialPrefersTheRoute(t *testing.T) {
	there := elsewhere(t)
	there.cable(t, "the", "cle", "10.4.0.1/24")
	there.cable(t, "thf", "clf", "10.5.0.1/24")
	there.grant(t, "the", lease{self: "10.4.0.1", client: "10.4.0.7", router: "10.4.0.1"})
	there.grant(t, "thf", lease{self: "10.5.0.1", client: "10.5.0.7"})
	there.listen(t, "10.5.0.1:7443")
	there.up(t, "the")
	m := &Manager{Config: config.Network{Mode: "dhcp"}}
	log, ctx := start(t, m)
	there.up(t, "thf")
	log.await(ctx, t, "10.5.0.7/24 from")
	if from := via(ctx, t, m, "10.5.0.1:7443"); from != "10.5.0.7" {
		t.Errorf("connected from %s", from)
	}
	m.Doubt("10.5.0.1")
	if from := via(ctx, t, m, "10.5.0.1:7443"); from != "10.4.0.7" {
		t.Errorf("after a doubt connected from %s", from)
	}
	m.Doubt("10.5.0.1")
	m.Doubt("10.5.0.1") // no doubt about a connection that was judged: both links have one, and the last one comes first
	if from := via(ctx, t, m, "10.5.0.1:7443"); from != "10.4.0.7" {
		t.Errorf("after two doubts connected from %s", from)
	}
}

// TestDialNames: the resolver of one lease does not know the name that the other one's knows, and none knows the configured one.
func TestDialNames(t *testing.T) {
	wrong, right := elsewhere(t), elsewhere(t)
	wrong.cable(t, "wrg", "clg", "10.6.0.1/24")
	wrong.grant(t, "wrg", lease{self: "10.6.0.1", client: "10.6.0.7", dns: "10.6.0.1"})
	wrong.names(t, "10.6.0.1", nil)
	right.cable(t, "rih", "clh", "10.7.0.1/24")
	right.grant(t, "rih", lease{self: "10.7.0.1", client: "10.7.0.7", dns: "10.7.0.1"})
	right.names(t, "10.7.0.1", net.ParseIP("10.7.0.1"))
	right.listen(t, "10.7.0.1:7443")
	wrong.up(t, "wrg")
	right.up(t, "rih")
	m := &Manager{Config: config.Network{Mode: "dhcp", Hosts: []config.Host{{Addr: netip.MustParseAddr("10.7.0.1"), Name: "configured.test"}}}}
	log, ctx := start(t, m)
	log.await(ctx, t, "10.6.0.7/24 from")
	log.await(ctx, t, "10.7.0.7/24 from")
	for _, name := range []string{"collector.test", "configured.test"} {
		if from := via(ctx, t, m, name+":7443"); from != "10.7.0.7" {
			t.Errorf("connected to %s from %s", name, from)
		}
	}
	_, err := m.Dial(ctx, &net.Dialer{}, "tcp", "other.test:7443")
	for _, want := range []string{"clg: lookup other.test", "clh: lookup other.test"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("an unknown name: %v, want %q in it", err, want)
		}
	}
}

// TestDialSaysWhatItTried: a refusal, a router that is missing, a cable that is missing.
func TestDialSaysWhatItTried(t *testing.T) {
	there := elsewhere(t)
	there.cable(t, "thi", "cli", "10.8.0.1/24")
	there.give(t, "lo", target+"/32")
	there.grant(t, "thi", lease{self: "10.8.0.1", client: "10.8.0.7", router: "10.8.0.1"})
	there.cable(t, "thj", "clj")
	there.cable(t, "thk", "clk", "10.9.0.1/24")
	there.grant(t, "thk", lease{self: "10.9.0.1", client: "10.9.0.7"}) // without a router
	there.up(t, "thi")
	m := &Manager{Config: config.Network{Mode: "dhcp"}}
	log, ctx := start(t, m)
	_, err := m.Dial(ctx, &net.Dialer{}, "tcp", targetPort)
	unreachable, ok := errors.AsType[*UnreachableError](err)
	if !ok || len(unreachable.Tried) != 3 {
		t.Fatalf("got %v, want an error that names three links", err)
	}
	for _, want := range []string{target + " over cli: connect: connection refused", "clj: no carrier", "clk: no carrier"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	there.up(t, "thk")
	log.await(ctx, t, "10.9.0.7/24 from")
	there.listen(t, targetPort)
	// The link without a router is the last resort: its only host answers no ARP request for the target.
	if from := via(ctx, t, m, targetPort); from != "10.8.0.7" {
		t.Errorf("connected from %s", from)
	}
}

// TestDialAfterFlap plugs the cable into another network. The old address goes.
func TestDialAfterFlap(t *testing.T) {
	there := elsewhere(t)
	client := there.cable(t, "thl", "cll", "10.10.0.1/24")
	there.grant(t, "thl", lease{self: "10.10.0.1", client: "10.10.0.7"})
	there.up(t, "thl")
	m := &Manager{Config: config.Network{Mode: "dhcp"}}
	log, ctx := start(t, m)
	there.down(t, "thl")
	log.await(ctx, t, "cll has lost its carrier")
	if _, err := m.Dial(ctx, &net.Dialer{}, "tcp", "10.10.0.1:7443"); err == nil || !strings.Contains(err.Error(), "no carrier any more") {
		t.Errorf("without a cable: %v", err)
	}
	checkAddr(t, client, "10.10.0.7/24") // connections may go on with it

	other := elsewhere(t)
	there.set(t, "thl", func(l netlink.Link) error { return there.handle.LinkSetNsFd(l, int(other.ns)) })
	other.give(t, "thl", "10.11.0.1/24")
	other.listen(t, "10.11.0.1:7443")
	other.grant(t, "thl", lease{self: "10.11.0.1", client: "10.11.0.7"})
	other.up(t, "thl")
	log.await(ctx, t, "10.11.0.7/24 from")
	if from := via(ctx, t, m, "10.11.0.1:7443"); from != "10.11.0.7" {
		t.Errorf("connected from %s", from)
	}
	addrs, err := netlink.AddrList(client, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 {
		t.Errorf("the link has %v (%v)", addrs, err)
	}
}

// TestDialStatic: without the name of an interface, the addresses go from link to link until the target answers.
func TestDialStatic(t *testing.T) {
	wrong, right := elsewhere(t), elsewhere(t)
	wrong.cable(t, "wrm", "clm")
	right.cable(t, "rin", "cln", "10.12.0.1/24")
	right.listen(t, "10.12.0.1:7443")
	wrong.up(t, "wrm")
	right.up(t, "rin")
	m := &Manager{Config: config.Network{Mode: "static", Address: []netip.Prefix{netip.MustParsePrefix("10.12.0.7/24")}}}
	log, ctx := start(t, m)
	for !log.has("cln has 10.12.0.7/24") {
		if _, err := m.Dial(ctx, &net.Dialer{}, "tcp", "10.12.0.1:7443"); err == nil {
			break
		}
	}
	log.await(ctx, t, "cln has 10.12.0.7/24")
	if from := via(ctx, t, m, "10.12.0.1:7443"); from != "10.12.0.7" {
		t.Errorf("connected from %s", from)
	}
}

// TestDialWithoutManaging: with mode none, the routes of the system decide.
func TestDialWithoutManaging(t *testing.T) {
	there := elsewhere(t)
	client := there.cable(t, "tho", "clo", "10.13.0.1/24")
	there.up(t, "tho")
	there.listen(t, "10.13.0.1:7443")
	if err := errors.Join(netlink.AddrAdd(client, testAddr("10.13.0.7/24")), netlink.LinkSetUp(client)); err != nil {
		t.Fatal(err)
	}
	m := &Manager{Config: config.Network{Mode: "none"}}
	_, ctx := start(t, m)
	if from := via(ctx, t, m, "10.13.0.1:7443"); from != "10.13.0.7" {
		t.Errorf("connected from %s", from)
	}
}
