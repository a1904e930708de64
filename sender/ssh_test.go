package sender

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender/sshdial"
	"github.com/corehaul/corehaul/sender/sshdial/sshdialtest"
)

// channel is an SSH channel as a receiver has it.
type channel struct{ ssh.Channel }

func (channel) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (channel) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (channel) SetDeadline(time.Time) error      { return nil }
func (channel) SetReadDeadline(time.Time) error  { return nil }
func (channel) SetWriteDeadline(time.Time) error { return nil }

// sshPeer serves f as the subsystem of an SSH server.
func sshPeer(t *testing.T, f *fakeReceiver) *sshdialtest.Server {
	t.Helper()
	subsystems := map[string]func(ssh.Channel){}
	if f != nil {
		subsystems[subsystem] = func(ch ssh.Channel) { f.serve(channel{ch}) }
	}
	return sshdialtest.Start(t, subsystems, "ed25519")
}

func sshDialer(t *testing.T, s *sshdialtest.Server) Dialer {
	t.Helper()
	client, err := sshdial.New(s.KeyFile, s.KnownHosts)
	if err != nil {
		t.Fatal(err)
	}
	return DialSSH(client, "test")
}

// TestSendSSH sends over SSH, with a server that goes away in between as one does that is killed.
func TestSendSSH(t *testing.T) {
	src, _ := newFakeSource(t)
	f := newFakeReceiver(t)
	f.cutAfter = []int{1, 2, 12 / fewer}
	s := sshPeer(t, f)
	f.cut = sync.OnceFunc(s.Cut)
	o := options(f)
	o.To, o.Dial, o.Level = []string{"ssh://dumps@" + s.Addr}, sshDialer(t, s), 0
	res, err := Send(t.Context(), src, o)
	if err != nil {
		t.Fatal(err)
	}
	f.checkPages(mustPlan(t, src, o)) // the receiver refuses any page that comes twice
	if res.State != protocol.StateComplete || res.Sessions < 4 {
		t.Errorf("%s in %d sessions, want it complete in 4 or more", res.State, res.Sessions)
	}
}

// TestMixedTargets: one dump, receivers of both kinds, in either order.
func TestMixedTargets(t *testing.T) {
	for name, tc := range map[string]struct{ ssh, tls bool }{"ssh is there": {true, false}, "tls is there": {false, true}} {
		t.Run(name, func(t *testing.T) {
			src, _ := newFakeSource(t)
			f := newFakeReceiver(t)
			var s *sshdialtest.Server
			if tc.ssh {
				s = sshPeer(t, f)
			} else {
				s = sshPeer(t, nil)
			}
			o := options(f)
			o.To = []string{"ssh://dumps@" + s.Addr, "tls://fake:1"}
			o.Dial = DialBy(map[string]Dialer{"ssh": sshDialer(t, s), "tls": func(ctx context.Context, target string) (net.Conn, error) {
				if !tc.tls {
					return nil, errors.New("nobody is there")
				}
				return f.dial(ctx, target)
			}})
			if tc.ssh {
				o.To[0], o.To[1] = o.To[1], o.To[0]
			}
			res, err := Send(t.Context(), src, o)
			if err != nil {
				t.Fatal(err)
			}
			f.checkPages(mustPlan(t, src, o))
			if res.Target != o.To[1] {
				t.Errorf("the dump is on %s, want %s", res.Target, o.To[1])
			}
		})
	}
}

// TestSSHErrors holds which failures another try may mend.
func TestSSHErrors(t *testing.T) {
	s := sshPeer(t, nil)
	dial := sshDialer(t, s)
	_, err := dial(t.Context(), "ssh://dumps@"+s.Addr)
	if !errors.Is(err, sshdial.ErrNoSubsystem) || !final(err) {
		t.Errorf("no subsystem: got %v, want it for good", err)
	}
	if _, err := dial(t.Context(), "ssh://dumps@127.0.0.1:1"); err == nil || !final(err) {
		t.Errorf("a host that is not known: got %v, want it for good", err)
	}
	s.Know(t, "127.0.0.1:1", s.Keys()[0])
	if _, err := sshDialer(t, s)(t.Context(), "ssh://dumps@127.0.0.1:1"); err == nil || permanent(err) || !passing(&dialError{err}) {
		t.Errorf("nobody there: got %v, want it to pass", err)
	}
	if _, err := DialBy(nil)(t.Context(), "ssh://dumps@h"); !final(err) {
		t.Errorf("a scheme without keys: got %v, want it for good", err)
	}
	s.Know(t, s.Addr, s.Keys()[0])
	sshdialtest.WriteKey(t, s.KeyFile, "ed25519")
	if _, err := sshDialer(t, s)(t.Context(), "ssh://dumps@"+s.Addr); !errors.Is(err, sshdial.ErrLogin) || !permanent(err) || final(err) {
		t.Errorf("another key: got %v, want it to be tried after a while", err)
	}
}

// TestSFTPHangsUp: a server that ends the line between its greeting and its first answer is no server without SFTP.
func TestSFTPHangsUp(t *testing.T) {
	s := sftpPeerOver(t, t.TempDir(), func(ch ssh.Channel) io.ReadWriteCloser { return &mute{Channel: ch} })
	if _, err := sshDialer(t, s)(t.Context(), "ssh://dumps@"+s.Addr); err == nil || permanent(err) {
		t.Errorf("got %v, want it to be tried again", err)
	}
}

// mute is a channel that closes after one answer.
type mute struct {
	ssh.Channel
	answers int
}

func (m *mute) Write(p []byte) (int, error) {
	if m.answers++; m.answers > 1 {
		_ = m.Close()
	}
	return m.Channel.Write(p)
}
