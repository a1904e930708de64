package tls

import (
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// site is a CA directory with one host's identity.
type site struct {
	dir      string
	receiver *Receiver
	identity *Identity
}

func newSite(t *testing.T, host string) *site {
	t.Helper()
	s := &site{dir: t.TempDir() + "/ca"}
	if _, err := InitCA(s.dir); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.receiver, err = LoadReceiver(s.dir); err != nil {
		t.Fatal(err)
	}
	s.identity = s.issue(t, host)
	return s
}

func (s *site) issue(t *testing.T, host string) *Identity {
	t.Helper()
	data, err := IssueHost(s.dir, host)
	if err != nil {
		t.Fatal(err)
	}
	id, err := parseIdentity("identity", data)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// outcome is what both sides of a connection found.
type outcome struct {
	host           string
	server, client error
}

// dial makes one connection over a real socket of the given address and passes a
// byte each way. Errors are as Explain gives them.
func dial(t *testing.T, address string, server, client *cryptotls.Config) outcome {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	served := make(chan outcome, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			served <- outcome{server: err}
			return
		}
		host, err := answer(ctx, cryptotls.Server(raw, server))
		served <- outcome{host: host, server: Explain(err)}
	}()
	clientErr := Explain(ask(ctx, l.Addr().String(), client))
	out := <-served
	out.client = clientErr
	return out
}

func answer(ctx context.Context, conn *cryptotls.Conn) (string, error) {
	defer func() { _ = conn.Close() }()
	if err := conn.HandshakeContext(ctx); err != nil {
		return "", fmt.Errorf("handshake: %w", err)
	}
	state := conn.ConnectionState()
	host, err := PeerName(&state)
	if err != nil {
		return "", err
	}
	_, err = conn.Write([]byte("x"))
	return host, err
}

func ask(ctx context.Context, address string, cfg *cryptotls.Config) error {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	conn := cryptotls.Client(raw, cfg)
	defer func() { _ = conn.Close() }()
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	_, err = conn.Read(make([]byte, 1)) // the server's refusal arrives here in TLS 1.3
	return err
}

func TestConnect(t *testing.T) {
	s := newSite(t, "web-7.example.org")
	other := newSite(t, "web-7.example.org")
	wrongPin := *s.identity
	wrongPin.Pins = []Pin{{1}, {2}}
	newPin := *s.identity
	newPin.Pins = []Pin{{1}, PinOf(s.receiver.Certificate.Leaf)}
	// The other site's host, which trusts this site's receiver: a foreign CA in earnest.
	foreign := *other.identity
	foreign.Pins = s.identity.Pins

	clientWith := func(id *Identity, change func(c *cryptotls.Config)) *cryptotls.Config {
		cfg := ClientConfig(id)
		if change != nil {
			change(cfg)
		}
		return cfg
	}
	at := func(year int) func(c *cryptotls.Config) {
		return func(c *cryptotls.Config) {
			c.Time = func() time.Time { return time.Date(year, 1, 1, 0, 0, 1, 0, time.UTC) }
		}
	}
	serverAt := func(year int) *cryptotls.Config {
		cfg := s.receiver.ServerConfig()
		at(year)(cfg)
		return cfg
	}
	good := s.receiver.ServerConfig()
	for _, tc := range []struct {
		name           string
		server, client *cryptotls.Config
		serverIs       func(error) bool
		clientIs       func(error) bool
	}{
		{"right", good, ClientConfig(s.identity), isNil, isNil},
		{"second of two pins", good, ClientConfig(&newPin), isNil, isNil},
		{"sender's clock at 1970", good, clientWith(s.identity, at(1970)), isNil, isNil},
		{"sender's clock at 2100", good, clientWith(s.identity, at(2100)), isNil, isNil},
		{"receiver's clock at 1970", serverAt(1970), ClientConfig(s.identity), isNil, isNil},
		{"receiver's clock at 2100", serverAt(2100), ClientConfig(s.identity), isNil, isNil},
		{"wrong pin", good, ClientConfig(&wrongPin), isAny, is[*PinError]},
		{"foreign CA", good, ClientConfig(&foreign), isForeignCA, refusedWith("another CA")},
		{"no client certificate", good, clientWith(s.identity, func(c *cryptotls.Config) {
			c.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
				return new(cryptotls.Certificate), nil
			}
		}), isNoCertificate, refusedWith("identity is required")},
		{"the receiver's own certificate", good, clientWith(s.identity, func(c *cryptotls.Config) {
			c.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
				return &s.receiver.Certificate, nil
			}
		}), is[*UntrustedError], refusedWith("not accepted")},
		{"TLS 1.2 client", good, clientWith(s.identity, func(c *cryptotls.Config) {
			c.MinVersion, c.MaxVersion = cryptotls.VersionTLS12, cryptotls.VersionTLS12
		}), isAny, refusedWith("TLS 1.3")},
		{"another application protocol", good, clientWith(s.identity, func(c *cryptotls.Config) { c.NextProtos = []string{"h2"} }), isAny, refusedWith("does not speak corehaul")},
	} {
		for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
			t.Run(tc.name+" "+address, func(t *testing.T) {
				got := dial(t, address, tc.server, tc.client)
				if !tc.serverIs(got.server) {
					t.Errorf("receiver: got %v", got.server)
				}
				if !tc.clientIs(got.client) {
					t.Errorf("sender: got %v", got.client)
				}
				want := ""
				if got.server == nil {
					want = "web-7.example.org"
				}
				if got.host != want {
					t.Errorf("got host %q, want %q", got.host, want)
				}
			})
		}
	}
}

func isNil(err error) bool           { return err == nil }
func isAny(err error) bool           { return err != nil }
func isForeignCA(err error) bool     { return errors.Is(err, ErrForeignCA) && is[*UntrustedError](err) }
func isNoCertificate(err error) bool { return errors.Is(err, ErrNoCertificate) }

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// refusedWith wants a RefusedError whose reason has a certain word in it: the reason
// is all that distinguishes one alert from another.
func refusedWith(word string) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[*RefusedError](err)
		return ok && strings.Contains(e.Reason, word)
	}
}

func TestPinErrorShowsBothPins(t *testing.T) {
	s := newSite(t, "h")
	id := *s.identity
	id.Pins = []Pin{{0xab}}
	got := dial(t, "127.0.0.1:0", s.receiver.ServerConfig(), ClientConfig(&id))
	e, ok := errors.AsType[*PinError](got.client)
	if !ok {
		t.Fatalf("got %v, want a PinError", got.client)
	}
	if e.Got != PinOf(s.receiver.Certificate.Leaf) || len(e.Want) != 1 || e.Want[0] != id.Pins[0] {
		t.Errorf("got %+v", e)
	}
	for _, pin := range []Pin{PinOf(s.receiver.Certificate.Leaf), id.Pins[0]} {
		if !strings.Contains(e.Error(), pin.String()) {
			t.Errorf("%s is not in %q", pin, e)
		}
	}
}

func TestAuthorize(t *testing.T) {
	s := newSite(t, "revoked")
	gone := errors.New("revoked on Monday")
	s.receiver.Authorize = func(host string, cert *x509.Certificate) error {
		if host == "revoked" && cert.Subject.CommonName == "revoked" {
			return gone
		}
		return nil
	}
	cfg := s.receiver.ServerConfig()
	got := dial(t, "127.0.0.1:0", cfg, ClientConfig(s.identity))
	e, ok := errors.AsType[*NotAuthorizedError](got.server)
	if !ok || e.Host != "revoked" || !errors.Is(e, gone) {
		t.Errorf("receiver: got %v, want a NotAuthorizedError", got.server)
	}
	if !refusedWith("not accepted")(got.client) {
		t.Errorf("sender: got %v", got.client)
	}
	if got := dial(t, "127.0.0.1:0", cfg, ClientConfig(s.issue(t, "another"))); got.server != nil || got.host != "another" {
		t.Errorf("another host: got %+v", got)
	}
}

// TestNoResumption: a second connection of the same client is verified like the first.
func TestNoResumption(t *testing.T) {
	s := newSite(t, "h")
	calls := 0
	s.receiver.Authorize = func(string, *x509.Certificate) error { calls++; return nil }
	server, client := s.receiver.ServerConfig(), ClientConfig(s.identity)
	client.ClientSessionCache = cryptotls.NewLRUClientSessionCache(4)
	for range 2 {
		if got := dial(t, "127.0.0.1:0", server, client); got.server != nil || got.client != nil {
			t.Fatalf("got %+v", got)
		}
	}
	if calls != 2 {
		t.Errorf("authorised %d times, want 2", calls)
	}
}

func TestPeerNameRefuses(t *testing.T) {
	s := newSite(t, "h")
	leaf := s.identity.Certificate.Leaf
	two := *leaf
	two.DNSNames = []string{"a", "b"}
	path := *leaf
	path.DNSNames = []string{"../../etc"}
	chain := func(c *x509.Certificate) [][]*x509.Certificate { return [][]*x509.Certificate{{c}} }
	for name, state := range map[string]cryptotls.ConnectionState{
		"no certificate": {},
		"not verified":   {PeerCertificates: []*x509.Certificate{leaf}},
		"two names":      {PeerCertificates: []*x509.Certificate{&two}, VerifiedChains: chain(&two)},
		"a path":         {PeerCertificates: []*x509.Certificate{&path}, VerifiedChains: chain(&path)},
	} {
		if host, err := PeerName(&state); err == nil || host != "" {
			t.Errorf("%s: got %q, %v", name, host, err)
		}
	}
}

func TestExplainPassesOthers(t *testing.T) {
	other := errors.New("other")
	if Explain(nil) != nil || !errors.Is(Explain(other), other) {
		t.Error("an error of another kind was changed")
	}
	op := &net.OpError{Op: "read", Err: errors.New("tls: bad certificate")}
	if is[*RefusedError](Explain(op)) {
		t.Error("a local error was taken for the peer's")
	}
}
