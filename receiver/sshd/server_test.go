package sshd

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/internal/outputtest"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/receiver/kdumpclients"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// rig is a server on a store of its own that lets one host in.
type rig struct {
	t      *testing.T
	store  storage.Store
	recv   *receiver.Server
	server *Server
	keys   string // path of the authorized keys
	addr   string
	log    outputtest.Buffer
	signer ssh.Signer // of host web-17
	line   string
	stop   func() // ends the server and waits
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, keys: filepath.Join(t.TempDir(), "authorized_keys")}
	r.signer, r.line = testKey(t)
	r.allow(r.line + " web-17\n")
	log := slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	store, err := local.Open(t.Context(), filepath.Join(t.TempDir(), "data"), storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.store = store
	if r.recv, err = receiver.New(receiver.Config{Store: store, Log: log, ResumeGrace: time.Hour}); err != nil {
		t.Fatal(err)
	}
	keys, err := LoadKeys(r.keys, log)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	old, err := ssh.NewSignerFromKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := testKey(t)
	r.server = New(Config{Receiver: r.recv, Keys: keys, HostKeys: []ssh.Signer{host, old}, Log: log})
	r.start()
	return r
}

func (r *rig) start() {
	var lc net.ListenConfig
	l, err := lc.Listen(r.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	var wg sync.WaitGroup
	for _, f := range []func() error{
		func() error { return r.recv.Run(ctx) },
		func() error { return r.server.Serve(ctx, l) },
		func() error { r.server.Watch(ctx); return nil },
	} {
		wg.Go(func() {
			if err := f(); err != nil {
				r.t.Error(err)
			}
		})
	}
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := r.store.Close(); err != nil {
			r.t.Error(err)
		}
		if r.t.Failed() {
			r.t.Log(r.log.String())
		}
	})
	r.t.Cleanup(r.stop)
}

// allow writes the authorized keys.
func (r *rig) allow(text string) {
	r.t.Helper()
	if err := errors.Join(os.WriteFile(r.keys+".new", []byte(text), 0o600), os.Rename(r.keys+".new", r.keys)); err != nil {
		r.t.Fatal(err)
	}
}

// dial logs in.
func (r *rig) dial(change func(*ssh.ClientConfig), auth ...ssh.AuthMethod) (*ssh.Client, error) {
	cfg := &ssh.ClientConfig{User: "root", HostKeyCallback: ssh.InsecureIgnoreHostKey(), Auth: auth, Timeout: time.Minute}
	if change != nil {
		change(cfg)
	}
	c, err := ssh.Dial("tcp", r.addr, cfg)
	if err == nil {
		r.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

func (r *rig) client() *ssh.Client {
	r.t.Helper()
	c, err := r.dial(nil, ssh.PublicKeys(r.signer))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// until waits for ok, as long as even a busy machine may take.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(5 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// logged waits for a text in the log.
func (r *rig) logged(want string) {
	r.t.Helper()
	r.until(fmt.Sprintf("the log has %q", want), func() bool { return strings.Contains(r.log.String(), want) })
}

// open opens a session channel and makes a request that the server takes.
func (r *rig) open(c *ssh.Client, request, arg string) (ssh.Channel, <-chan *ssh.Request) {
	r.t.Helper()
	ch, reqs, err := c.OpenChannel("session", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	ok, err := ch.SendRequest(request, true, ssh.Marshal(struct{ Text string }{arg}))
	if err != nil || !ok {
		r.t.Fatalf("%s %q: %v, %v", request, arg, ok, err)
	}
	return ch, reqs
}

var testHello = protocol.Hello{
	DumpID: protocol.DumpID(nil, []byte("x"), nil), Tool: "test", Machine: "x86_64", PageSize: 4096, MaxPFN: 1, NrCPUs: 1,
}

// TestLogOverSubsystem files a log under the host of the key.
func TestLogOverSubsystem(t *testing.T) {
	r := newRig(t)
	ch, reqs := r.open(r.client(), "subsystem", protocol.Subsystem)
	go ssh.DiscardRequests(reqs)
	wire := protocol.NewConn(ch, protocol.Sender)
	hello := testHello
	if err := wire.Write(&hello); err != nil {
		t.Fatal(err)
	}
	log := wire.NewLogWriter()
	line := strings.Repeat("a line of the kernel log ", 40) // few lines, because each is searched for a panic line
	_, err := io.WriteString(log, strings.Repeat(line[1:]+"\n", 2500))
	if err = errors.Join(err, log.Close(""), wire.Write(&protocol.Finish{Reason: protocol.ReasonLogOnly})); err != nil {
		t.Fatal(err)
	}
	for {
		msg, err := wire.Read()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := msg.(*protocol.Sealed); ok {
			break
		}
	}
	if err := wire.Close(); err != nil {
		t.Error(err)
	}
	entry, err := r.store.Find(t.Context(), hello.DumpID)
	if err != nil {
		t.Fatal(err)
	}
	if m := entry.Manifest; entry.Host != "web-17" || m.Transport != Transport || m.Bytes.Log != 2_500_000 {
		t.Errorf("filed as %+v", m)
	}
}

// TestNotLetIn tries ways in that are none.
func TestNotLetIn(t *testing.T) {
	r := newRig(t)
	stranger, _ := testKey(t)
	for name, auth := range map[string]ssh.AuthMethod{
		"another key": ssh.PublicKeys(stranger),
		"password":    ssh.Password("secret"),
		"keyboard-interactive": ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) {
			return nil, nil
		}),
	} {
		if _, err := r.dial(nil, auth); err == nil {
			t.Errorf("%s: let in", name)
		}
	}
	r.logged(ssh.FingerprintSHA256(stranger.PublicKey()))
	refused := func() uint64 { return r.recv.Status(t.Context()).Totals.Refused[string(protocol.CodeIdentity)] }
	r.until("three connections are refused", func() bool { return refused() == 3 }) // the server hears of it later than the client
}

// TestLegacy logs in with SHA-1 signatures, by peer and by server.
func TestLegacy(t *testing.T) {
	r := newRig(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sha1, err := ssh.NewSignerWithAlgorithms(signer.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSA})
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	oldHostKey := func(c *ssh.ClientConfig) { c.HostKeyAlgorithms = []string{ssh.KeyAlgoRSA} }
	oldKex := func(c *ssh.ClientConfig) { c.KeyExchanges = []string{ssh.InsecureKeyExchangeDH1SHA1} }
	for _, tc := range []struct {
		name, keys string
		change     func(*ssh.ClientConfig)
		auth       ssh.Signer
		in         bool
	}{
		{"SHA-1 nobody may use", line + " old", nil, sha1, false},
		{"SHA-1 of another key only", line + " old\n" + `legacy="ssh-rsa" ` + r.line + " x", nil, sha1, false},
		{"SHA-1 named", `legacy="ssh-rsa" ` + line + " old", nil, sha1, true},
		{"SHA-256 of an RSA key", line + " old", nil, signer, true},
		{"host key of another key only", line + " old\n" + `legacy="ssh-rsa" ` + r.line + " x", oldHostKey, signer, false},
		{"host key nobody may use", line + " old", oldHostKey, signer, false},
		{"host key named", `legacy="ssh-rsa" ` + line + " old", oldHostKey, signer, true},
		{"key exchange nobody may use", line + " old", oldKex, signer, false},
		{"key exchange named", `legacy="diffie-hellman-group1-sha1" ` + line + " old", oldKex, signer, true},
	} {
		r.allow(tc.keys + "\n")
		_, err := r.dial(tc.change, ssh.PublicKeys(tc.auth))
		if in := err == nil; in != tc.in {
			t.Errorf("%s: let in %v, want %v: %v", tc.name, in, tc.in, err)
		}
	}
	r.logged("the client uses ssh-rsa")
}

// TestNothingElse asks for all that SSH servers usually do.
func TestNothingElse(t *testing.T) {
	r := newRig(t)
	c := r.client()
	for _, typ := range []string{"direct-tcpip", "direct-streamlocal@openssh.com", "x11", "tun@openssh.com"} {
		var open *ssh.OpenChannelError
		if _, _, err := c.OpenChannel(typ, nil); !errors.As(err, &open) || open.Reason != ssh.Prohibited {
			t.Errorf("channel %s: %v", typ, err)
		}
	}
	for _, req := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "keepalive@openssh.com"} {
		if ok, _, err := c.SendRequest(req, true, nil); ok || err != nil {
			t.Errorf("request %s: %v, %v", req, ok, err)
		}
	}
	ch, _, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, req := range []string{"pty-req", "env", "auth-agent-req@openssh.com", "x11-req", "signal", "break"} {
		if ok, err := ch.SendRequest(req, true, nil); ok || err != nil {
			t.Errorf("request %s of a channel: %v, %v", req, ok, err)
		}
	}
	if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"netconf"})); ok || err != nil {
		t.Errorf("subsystem: %v, %v", ok, err)
	}
	for _, run := range []func(*ssh.Session) error{
		(*ssh.Session).Shell, func(s *ssh.Session) error { return s.Start("id") }, func(s *ssh.Session) error { return s.Start("$(id)") },
	} {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		s.Stderr = &stderr
		var exit *ssh.ExitError
		if err := run(s); err != nil {
			t.Fatal(err)
		}
		if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 127 || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("ended with %v and %q", err, stderr.String())
		}
	}
	r.logged("request=pty-req")
	r.logged("type=direct-tcpip")
	r.logged("command=id")
}

// TestManyChannels opens more channels than a host may have, over two connections.
func TestManyChannels(t *testing.T) {
	r := newRig(t)
	first, second := r.client(), r.client()
	var open, busy int
	for i := range 10_000 {
		c := first
		if i%2 == 1 {
			c = second
		}
		var refused *ssh.OpenChannelError
		_, _, err := c.OpenChannel("session", nil)
		switch {
		case err == nil:
			open++
		case errors.As(err, &refused) && refused.Reason == ssh.ResourceShortage:
			busy++
		default:
			t.Fatal(err)
		}
	}
	if open != maxHostChannels || busy != 10_000-maxHostChannels {
		t.Errorf("%d channels open, %d refused, want %d open", open, busy, maxHostChannels)
	}
	if n := strings.Count(r.log.String(), "refused a channel"); n > 100 {
		t.Errorf("%d lines of log", n)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	r.until("channels of a closed connection count no more", func() bool {
		ch, _, err := second.OpenChannel("session", nil)
		if err == nil {
			_ = ch.Close()
		}
		return err == nil
	})
}

// TestFailuresAreNoFlood asks a hundred times for what does not go, with names of a hundred kilobytes.
func TestFailuresAreNoFlood(t *testing.T) {
	r := newRig(t)
	r.server.cfg.Trees = func(kdumpclients.Peer) (kdumpclients.Tree, error) { return newMemTree(), nil }
	c := r.client()
	files, err := sftp.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := files.Open("/" + strings.Repeat("a", 100_000)); !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run("rmdir /none"); err == nil {
			t.Fatal("a directory that is not there was removed")
		}
	}
	if err := files.Close(); err != nil {
		t.Error(err)
	}
	if log := r.log.String(); len(log) > 40_000 || !strings.Contains(log, "failures=128") || !strings.Contains(log, "commands=64") {
		t.Errorf("%d bytes of log", len(log))
	}
}

// TestManyConnections opens more connections than a host may have.
func TestManyConnections(t *testing.T) {
	r := newRig(t)
	for range maxHostConnections {
		r.client()
	}
	c := r.client() // it is let in and then sent away
	_ = c.Wait()    // the test would time out
	r.logged("limit=64")
	other, line := testKey(t)
	r.allow(r.line + " web-17\n" + line + " web-18\n")
	if _, err := r.dial(nil, ssh.PublicKeys(other)); err != nil {
		t.Errorf("another host: %v", err)
	}
}

// TestStop stops the server while clients are in the middle of all that they can do.
func TestStop(t *testing.T) {
	tree := newMemTree()
	r := newRig(t)
	r.server.cfg.Trees = func(kdumpclients.Peer) (kdumpclients.Tree, error) { return tree, nil }
	c := r.client()
	for _, command := range []string{"cat > /cat", "scp -t /scp"} {
		ch, reqs := r.open(c, "exec", command)
		go ssh.DiscardRequests(reqs)
		if _, err := io.WriteString(ch, "C0644 100 x\nhalf"); err != nil {
			t.Fatal(err)
		}
	}
	session, reqs := r.open(c, "subsystem", protocol.Subsystem)
	go ssh.DiscardRequests(reqs)
	hello := testHello
	if err := protocol.NewConn(session, protocol.Sender).Write(&hello); err != nil {
		t.Fatal(err)
	}
	files, err := sftp.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	file, err := files.Create("/sftp")
	if err == nil {
		_, err = io.WriteString(file, "half")
	}
	if err != nil {
		t.Fatal(err)
	}
	r.logged("session began")
	r.until("all are under way", func() bool {
		tree.mu.Lock()
		defer tree.mu.Unlock()
		return tree.open == 3
	})
	r.stop()
	if len(tree.aborted) != 3 || tree.open != 0 {
		t.Errorf("%d files are open, aborted %v, want three", tree.open, tree.aborted)
	}
}

// TestRevoked takes a key out of the file while its connection is open.
func TestRevoked(t *testing.T) {
	r := newRig(t)
	c := r.client()
	ch, reqs := r.open(c, "subsystem", protocol.Subsystem)
	go ssh.DiscardRequests(reqs)
	hello := testHello
	if err := protocol.NewConn(ch, protocol.Sender).Write(&hello); err != nil {
		t.Fatal(err)
	}
	other, line := testKey(t)
	r.allow(line + " web-18\n")
	if _, err := r.dial(nil, ssh.PublicKeys(r.signer)); err == nil {
		t.Error("a revoked key was let in")
	}
	if _, err := r.dial(nil, ssh.PublicKeys(other)); err != nil {
		t.Errorf("a new key: %v", err)
	}
	_ = c.Wait() // the test would time out
	r.logged("removed from the authorized keys")
}
