// Package sshdialtest is a small SSH server for tests, which choose its keys and subsystems.
package sshdialtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Server is an SSH server on the loopback address that accepts one key.
type Server struct {
	// Addr is HOST:PORT.
	Addr string
	// KeyFile has the private key that the server accepts, KnownHosts the public keys of the server.
	KeyFile, KnownHosts string

	conf       *ssh.ServerConfig
	keys       []ssh.PublicKey
	subsystems map[string]func(ssh.Channel)
	listener   net.Listener
	running    sync.WaitGroup
	mu         sync.Mutex
	conns      map[net.Conn]bool
}

// Start starts a server with host keys of the given types (ed25519, ecdsa, rsa). It passes channels to the subsystems by
// name. It ends with the test.
func Start(tb testing.TB, subsystems map[string]func(ssh.Channel), kinds ...string) *Server {
	tb.Helper()
	dir := tb.TempDir()
	s := &Server{KeyFile: filepath.Join(dir, "key"), KnownHosts: filepath.Join(dir, "known_hosts"), subsystems: subsystems, conns: map[net.Conn]bool{}}
	user := WriteKey(tb, s.KeyFile, "ed25519")
	s.conf = &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(user.PublicKey().Marshal()) {
			return nil, os.ErrPermission
		}
		return new(ssh.Permissions), nil
	}}
	for _, kind := range kinds {
		signer := newSigner(tb, kind)
		s.conf.AddHostKey(signer)
		s.keys = append(s.keys, signer.PublicKey())
	}
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s.listener, s.Addr = l, l.Addr().String()
	s.Know(tb, s.Addr, s.keys...)
	s.running.Go(s.accept)
	tb.Cleanup(s.stop)
	return s
}

// Keys returns the public host keys, in the order of their types.
func (s *Server) Keys() []ssh.PublicKey { return s.keys }

// Know writes a known_hosts file with keys for an address.
func (s *Server) Know(tb testing.TB, addr string, keys ...ssh.PublicKey) {
	tb.Helper()
	var lines strings.Builder
	for _, k := range keys {
		lines.WriteString(knownhosts.Line([]string{addr}, k) + "\n")
	}
	if err := os.WriteFile(s.KnownHosts, []byte(lines.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// Cut breaks all connections, like a killed server.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close() // the connection is meant to break
	}
}

func (s *Server) stop() {
	_ = s.listener.Close() // nothing is lost
	s.Cut()
	s.running.Wait()
}

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		s.running.Go(func() {
			s.serve(c)
			_ = c.Close() // it may be broken
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
		})
	}
}

func (s *Server) serve(c net.Conn) {
	conn, chans, reqs, err := ssh.NewServerConn(c, s.conf)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	for ch := range chans {
		if ch.ChannelType() != "session" {
			_ = ch.Reject(ssh.UnknownChannelType, "sessions only") // the client may be gone
			continue
		}
		s.running.Go(func() { s.session(ch) })
	}
	_ = conn.Wait() // the client went
}

func (s *Server) session(nc ssh.NewChannel) {
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	for r := range reqs {
		var what struct{ Name string }
		err := ssh.Unmarshal(r.Payload, &what)
		serve := s.subsystems[what.Name]
		good := err == nil && r.Type == "subsystem" && serve != nil
		_ = r.Reply(good, nil) // the client may be gone
		if good {
			go ssh.DiscardRequests(reqs)
			serve(ch)
			_ = ch.Close() // the client may be gone
			return
		}
	}
}

func newKey(tb testing.TB, kind string) crypto.Signer {
	tb.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		tb.Fatalf("no keys of kind %s", kind)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func newSigner(tb testing.TB, kind string) ssh.Signer {
	tb.Helper()
	signer, err := ssh.NewSignerFromSigner(newKey(tb, kind))
	if err != nil {
		tb.Fatal(err)
	}
	return signer
}

// WriteKey makes a private key of a type (ed25519, ecdsa, rsa) and writes it to a file.
func WriteKey(tb testing.TB, file, kind string) ssh.Signer {
	tb.Helper()
	key := newKey(tb, kind)
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		tb.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		tb.Fatal(err)
	}
	return signer
}
