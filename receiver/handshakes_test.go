package receiver

import (
	"cmp"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/protocol"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// TestHandshakesOfOneAddressAreBounded fills the places of one address with silent connections. A peer at another address is served.
func TestHandshakesOfOneAddressAreBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = minStrangers + 8 })
	var quiet net.Dialer
	for range minStrangers + 4 {
		conn, err := quiet.DialContext(t.Context(), "tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }() // nothing was said
	}
	r.eventually("those beyond the limit are refused", func() bool { return r.busy() == 4 })
	r.eventually("the others are waited for", func() bool { return len(r.server.conns) == minStrangers })
	conf := corehaultls.ClientConfig(r.identity("web1"))
	near := cryptotls.Dialer{Config: conf}
	if conn, err := near.DialContext(t.Context(), "tcp", r.addr); err == nil {
		_ = conn.Close()
		t.Error("another connection from the same address was taken")
	}
	far := cryptotls.Dialer{Config: conf, NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}}
	conn, err := far.DialContext(t.Context(), "tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	// A handshake of TLS 1.3 is over for the client before the server has looked at it.
	if _, err := io.WriteString(conn, "no frame, but from somebody who is known"); err != nil {
		t.Error(err)
	}
	r.eventually("the other address has a session", func() bool { return strings.Contains(r.log.String(), "session ended early") })
	if n := r.busy(); n != 5 {
		t.Errorf("%d connections were refused, want 5", n)
	}
	_ = conn.Close()
}

// busy is how many peers were refused because there were too many.
func (r *rig) busy() uint64 {
	return r.server.Status(r.t.Context()).Totals.Refused[string(protocol.CodeBusy)]
}

func TestNeighbourhood(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:1": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1": "fe80::/64", "@": "@", "": "",
	} {
		if got := neighbourhood(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

// TestStrangersGiveWay has four addresses hold all places without a word. A newcomer from elsewhere gets one, of the address with the most.
func TestStrangersGiveWay(t *testing.T) {
	s := newStrangers(64)
	ended := map[string]int{}
	enter := func(from string) (*stranger, error) {
		return s.enter(from, func(err error) {
			if !errors.Is(err, protocol.CodeBusy) {
				t.Errorf("ended by %v", err)
			}
			ended[from]++
		})
	}
	for i := range 4 * s.each {
		_, _ = enter(fmt.Sprintf("198.51.100.%d", i%4)) // all that there are
	}
	if s.count != s.most || len(ended) > 0 {
		t.Fatalf("%d of %d places are taken, %v ended", s.count, s.most, ended)
	}
	fair, got := s.most/5, 0
	var first *stranger
	for {
		st, err := enter("192.0.2.1")
		if err != nil {
			break
		}
		first = cmp.Or(first, st)
		got++
	}
	if got < fair || got > fair+1 {
		t.Errorf("a newcomer among four got %d of %d places", got, s.most)
	}
	if len(ended) != 4 || ended["192.0.2.1"] > 0 || s.count != s.most {
		t.Errorf("%v ended, %d places are taken", ended, s.count)
	}
	s.leave("192.0.2.1", first)
	s.leave("192.0.2.1", first)
	if s.count != s.most-1 || len(s.from["192.0.2.1"]) != got-1 {
		t.Errorf("%d places are taken, %d by the newcomer", s.count, len(s.from["192.0.2.1"]))
	}
	if _, err := enter("192.0.2.2"); err != nil {
		t.Error(err)
	}
}
