package receiver

import (
	cryptotls "crypto/tls"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/protocol"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// TestHandshakesOfOneAddressAreBounded has one address hold as many connections as it can without saying a word: another one is served.
func TestHandshakesOfOneAddressAreBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = minHandshakes + 8 })
	var quiet net.Dialer
	for range minHandshakes + 4 {
		conn, err := quiet.DialContext(t.Context(), "tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }() // nothing was said
	}
	r.eventually("those beyond the limit are refused", func() bool { return r.busy() == 4 })
	r.eventually("the others are waited for", func() bool { return len(r.server.conns) == minHandshakes })
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
