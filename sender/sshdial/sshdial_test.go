package sshdial

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/corehaul/corehaul/sender/sshdial/sshdialtest"
	corehaultls "github.com/corehaul/corehaul/tls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo sends back what it gets.
func echo(ch ssh.Channel) {
	_, _ = io.Copy(ch, ch) // the test looks at what comes
}

func start(t *testing.T, serve func(ssh.Channel), kinds ...string) *sshdialtest.Server {
	t.Helper()
	return sshdialtest.Start(t, map[string]func(ssh.Channel){"corehaul": serve}, kinds...)
}

func newClient(t *testing.T, s *sshdialtest.Server) *Client {
	t.Helper()
	c, err := New(s.KeyFile, s.KnownHosts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dial opens the subsystem corehaul; the connection ends with the test.
func dial(t *testing.T, c *Client, addr string) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := c.Connect(ctx, "dumps", addr)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = s.Close() })
	return s.Subsystem(ctx, "corehaul")
}

func mustDial(t *testing.T, s *sshdialtest.Server) net.Conn {
	t.Helper()
	nc, err := dial(t, newClient(t, s), s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

// TestKnownKeys: a host is asked for the keys that are known for it, of whatever kind, however
// the file names the host.
func TestKnownKeys(t *testing.T) {
	s := start(t, echo, "rsa", "ecdsa", "ed25519")
	for i, key := range s.Keys() {
		hashed := knownhosts.Line([]string{knownhosts.HashHostname(knownhosts.Normalize(s.Addr))}, key)
		wild := strings.Replace(knownhosts.Line([]string{"127.0.0.*"}, key), "127.0.0.*", strings.Replace(knownhosts.Normalize(s.Addr), "0.1]", "0.*]", 1), 1)
		for name, line := range map[string]string{"plain": knownhosts.Line([]string{s.Addr}, key), "hashed": hashed, "pattern": wild} {
			t.Run(key.Type()+" "+name, func(t *testing.T) {
				other := knownhosts.Line([]string{"other"}, s.Keys()[(i+1)%3])
				if err := os.WriteFile(s.KnownHosts, []byte("# comment\n"+other+"\n"+line+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				nc := mustDial(t, s)
				echoes(t, nc)
			})
		}
	}
}

func echoes(t *testing.T, nc net.Conn) {
	t.Helper()
	want := bytes.Repeat([]byte("pages"), 1<<20)
	go func() { _, _ = nc.Write(want) }() // the test looks at what comes back
	got := make([]byte, len(want))
	if _, err := io.ReadFull(nc, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what came back is something else, or %v", err)
	}
}

// TestUserKeys: all kinds of keys log in.
func TestUserKeys(t *testing.T) {
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		file := filepath.Join(t.TempDir(), "key")
		want := sshdialtest.WriteKey(t, file, kind)
		got, err := loadKey(file)
		if err != nil || !bytes.Equal(got.PublicKey().Marshal(), want.PublicKey().Marshal()) {
			t.Errorf("%s: got %v, %v", kind, got, err)
		}
	}
}

// TestRefusals holds what no other try changes, and what is said of it.
func TestRefusals(t *testing.T) {
	s := start(t, echo, "ed25519")
	other := start(t, echo, "ed25519")
	for name, tc := range map[string]struct {
		change    func()
		text      string
		hint      string
		subsystem bool
	}{
		"unknown host": {func() { s.Know(t, "other:22", s.Keys()[0]) }, "has no key of [127.0.0.1]:", "ssh-keyscan -p", false},
		"empty file":   {func() { s.Know(t, s.Addr) }, "has no key of [127.0.0.1]:", "ssh-keyscan -p", false},
		"another key":  {func() { s.Know(t, s.Addr, other.Keys()[0]) }, "is not the one in " + s.KnownHosts, "find out who answers", false},
		"revoked key": {func() {
			line := knownhosts.Line([]string{s.Addr}, s.Keys()[0])
			writeFile(t, s.KnownHosts, line+"\n@revoked * "+line[strings.Index(line, "ssh-"):]+"\n")
		}, "revoked", "", false},
		"unknown user": {func() {
			s.Know(t, s.Addr, s.Keys()[0])
			sshdialtest.WriteKey(t, s.KeyFile, "ecdsa")
		}, "does not let \"dumps\" in with the key " + s.KeyFile, `for OpenSSH): host="` + thisHost() + `" ecdsa-sha2-nistp256 AAAA`, false},
	} {
		t.Run(name, func(t *testing.T) {
			tc.change()
			_, err := dial(t, newClient(t, s), s.Addr)
			e, ok := errors.AsType[*RefusedError](err)
			if !ok || !strings.Contains(e.Error(), tc.text) || !strings.Contains(strings.Join(e.Hints(), " "), tc.hint) {
				t.Errorf("got %v, want it refused with %q", err, tc.text)
			}
		})
	}
}

func TestNoSubsystem(t *testing.T) {
	s := sshdialtest.Start(t, nil, "ed25519")
	_, err := dial(t, newClient(t, s), s.Addr)
	if _, ok := errors.AsType[*RefusedError](err); !ok || !errors.Is(err, ErrNoSubsystem) {
		t.Errorf("got %v, want ErrNoSubsystem", err)
	}
}

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPeers: who answers at the address decides whether another try is of use.
func TestPeers(t *testing.T) {
	s := start(t, echo, "ed25519")
	for name, tc := range map[string]struct {
		greeting string
		hold     bool
		refused  bool
	}{
		"closes at once":      {"", false, false},
		"too many startups":   {"Not allowed at this time\r\n", false, false},
		"no SSH":              {"HTTP/1.1 400 Bad Request\r\n" + strings.Repeat("x", 300) + "\r\n", true, true},
		"breaks in the midst": {"SSH-2.0-x\r\n", false, false},
		"never says a word":   {"", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := greet(t, tc.greeting, tc.hold)
			known := filepath.Join(t.TempDir(), "known_hosts")
			writeFile(t, known, knownhosts.Line([]string{addr}, s.Keys()[0])+"\n")
			c, err := New(s.KeyFile, known)
			if err != nil {
				t.Fatal(err)
			}
			silent, ctx := tc.greeting == "" && tc.hold, t.Context()
			if silent {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Second)
				defer cancel()
			}
			_, err = c.Connect(ctx, "dumps", addr)
			if _, ok := errors.AsType[*RefusedError](err); err == nil || ok != tc.refused {
				t.Errorf("got %v, want it refused: %v", err, tc.refused)
			}
			if silent && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the end of the time", err)
			}
		})
	}
}

// greet listens and says the same to everybody. It hangs up at once, or when the peer does.
func greet(t *testing.T, greeting string, hold bool) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, greeting)
		if hold {
			_, _ = io.Copy(io.Discard, c)
		}
		_ = c.Close()
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// TestEnds holds how the ends of a connection look.
func TestEnds(t *testing.T) {
	t.Run("the server ends in good order", func(t *testing.T) {
		s := start(t, func(ch ssh.Channel) { _, _ = ch.Write([]byte("bye")) }, "ed25519")
		nc := mustDial(t, s)
		if got, err := io.ReadAll(nc); err != nil || string(got) != "bye" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("the server ends with words", func(t *testing.T) {
		s := start(t, func(ch ssh.Channel) { _, _ = io.WriteString(ch.Stderr(), "corehaul: no server\x1b[2J is running\n") }, "ed25519")
		_, err := mustDial(t, s).Read(make([]byte, 1))
		if !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "no server [2J is running") {
			t.Errorf("got %v, want what the server says", err)
		}
	})
	t.Run("the line breaks", func(t *testing.T) {
		s := start(t, echo, "ed25519")
		nc := mustDial(t, s)
		time.AfterFunc(100*time.Millisecond, s.Cut)
		if _, err := io.ReadAll(nc); err == nil {
			t.Error("a broken line reads like an end in good order")
		}
	})
	t.Run("half of it ends", func(t *testing.T) {
		s := start(t, func(ch ssh.Channel) {
			n, _ := io.Copy(io.Discard, ch)
			_, _ = ch.Write([]byte{byte(n)})
		}, "ed25519")
		nc := mustDial(t, s)
		if _, err := nc.Write([]byte("1234567")); err != nil {
			t.Fatal(err)
		}
		hc, ok := nc.(interface{ CloseWrite() error })
		if !ok {
			t.Fatal("there is no CloseWrite, which a session needs for its end")
		}
		if err := hc.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(nc); err != nil || string(got) != "\x07" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// TestClose: whoever waits is let go, for the channel's window as well.
func TestClose(t *testing.T) {
	for name, end := range map[string]func(net.Conn) error{
		"close":    func(nc net.Conn) error { return nc.Close() },
		"deadline": func(nc net.Conn) error { return nc.SetDeadline(time.Now().Add(50 * time.Millisecond)) },
	} {
		t.Run(name, func(t *testing.T) {
			stop := make(chan struct{})
			s := start(t, func(ssh.Channel) { <-stop }, "ed25519")
			defer close(stop)
			nc := mustDial(t, s)
			errs := make(chan error, 2)
			go func() {
				_, err := nc.Write(make([]byte, 64<<20))
				errs <- err
			}()
			go func() {
				_, err := nc.Read(make([]byte, 1))
				errs <- err
			}()
			time.AfterFunc(100*time.Millisecond, func() {
				if err := end(nc); err != nil {
					t.Error(err)
				}
			})
			want := map[string]error{"close": net.ErrClosed, "deadline": os.ErrDeadlineExceeded}[name]
			for range 2 {
				if err := <-errs; !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			}
			_ = nc.Close()
		})
	}
}

// TestDeadlineTakenBack: one that is moved on or taken back does nothing.
func TestDeadlineTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		c := &conn{line: &line{Conn: here}}
		set := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		set(c.SetDeadline(time.Now().Add(20 * time.Second)))
		set(c.SetDeadline(time.Now().Add(time.Hour)))
		set(c.SetReadDeadline(time.Now().Add(30 * time.Millisecond)))
		set(c.SetReadDeadline(time.Time{}))
		time.Sleep(time.Minute)
		go func() { _, _ = there.Write([]byte("x")) }() // the test looks at what comes
		if _, err := c.line.Read(make([]byte, 1)); err != nil {
			t.Errorf("the line is gone: %v", err)
		}
		set(c.SetDeadline(time.Time{}))
		time.Sleep(2 * time.Hour)
		set(c.Close())
	})
}

// TestFiles holds what is said of key files that cannot be used.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	signer := sshdialtest.WriteKey(t, good, "ed25519")
	for name, tc := range map[string]struct{ text, problem string }{
		"public":    {string(ssh.MarshalAuthorizedKey(signer.PublicKey())), "public key"},
		"empty":     {"", "not a private key"},
		"passphase": {encryptedKey, "passphrase"},
		"missing":   {"-", "no such file"},
	} {
		file := filepath.Join(dir, name)
		if tc.text != "-" {
			writeFile(t, file, tc.text)
		}
		_, err := New(file, good)
		if e, ok := errors.AsType[*corehaultls.FileError](err); !ok || e.Path != file || !strings.Contains(e.Problem, tc.problem) || e.Hint == "" {
			t.Errorf("%s: got %v, want %q", name, err, tc.problem)
		}
	}
	for _, file := range []string{good, filepath.Join(dir, "nothing")} { // a key is no list of hosts
		_, err := New(good, file)
		if e, ok := errors.AsType[*corehaultls.FileError](err); !ok || e.Path != file || e.Hint == "" {
			t.Errorf("known_hosts %s: got %v", file, err)
		}
	}
}

// encryptedKey was made with: ssh-keygen -t ed25519 -N secret
const encryptedKey = `-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABCrwWTAdp
D4TNjye0/0Bj3MAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIJnFQSphcf8PzIfV
uDUXs4AxsUsJK6F/jsTWej1RVcnwAAAAkOH1TRgYEF5+uhkGiKnG2lFxZhLpryCQe3kvo/
B+5TXRSbzLSjg4IEkDFFN2JNarv/ium8dakalq6A+hEd4YCF0Hl/HL/uOVY/ohADWCYyad
vmluXAnHWZEB+o5cZto+u9lQ4aaRiNP2QVfQtTNYfuUwoiX1cKjNTpAjwPoj25b1K10mFm
Gigg5k0qv6PytCjQ==
-----END OPENSSH PRIVATE KEY-----
`
