package e2e

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/sender/sshdial"
)

// sshTargetServer starts OpenSSH's server, which ends with the test.
func sshTargetServer(t *testing.T, settings ...string) *lab.SSHD {
	t.Helper()
	s, err := lab.StartSSHD(t.Context(), t.TempDir(), settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// sshTargetKnown writes a known_hosts file with the server's keys of some kinds, all without any.
func sshTargetKnown(t *testing.T, s *lab.SSHD, kinds ...string) string {
	t.Helper()
	lines, err := s.Known(t.Context(), kinds...)
	if err != nil || lines == "" {
		t.Fatalf("ssh-keyscan: %q, %v", lines, err)
	}
	return sshTargetFile(t, lines)
}

func sshTargetFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// sshTargetDial opens the subsystem corehaul of a server.
func sshTargetDial(t *testing.T, s *lab.SSHD, key, known string) (net.Conn, error) {
	t.Helper()
	client, err := sshdial.New(key, known)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	session, err := client.Connect(ctx, "root", s.Addr)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = session.Close() })
	return session.Subsystem(ctx, "corehaul")
}

func sshTargetMust(t *testing.T, s *lab.SSHD, key, known string) {
	t.Helper()
	nc, err := sshTargetDial(t, s, key, known)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	go func() { _, _ = nc.Write(want) }() // what comes back is looked at
	got := make([]byte, len(want))
	if _, err := io.ReadFull(nc, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what went through cat is something else, or %v", err)
	}
}

// TestOpenSSHKeys: OpenSSH's server with keys of all kinds, of which only some are known, and
// users' keys of all kinds, as OpenSSH's own programs write them.
func TestOpenSSHKeys(t *testing.T) {
	s := sshTargetServer(t, "Subsystem corehaul /bin/cat")
	for _, kind := range lab.KeyKinds {
		t.Run("host "+kind, func(t *testing.T) {
			known := sshTargetKnown(t, s, kind)
			sshTargetMust(t, s, s.UserKeys["ed25519"], known)
			captureCommand(t, "ssh-keygen", "-q", "-H", "-f", known)
			if text, err := os.ReadFile(known); err != nil || !strings.HasPrefix(string(text), "|1|") {
				t.Fatalf("known_hosts is not hashed: %q, %v", text, err)
			}
			sshTargetMust(t, s, s.UserKeys["ed25519"], known)
		})
		t.Run("user "+kind, func(t *testing.T) { sshTargetMust(t, s, s.UserKeys[kind], sshTargetKnown(t, s)) })
	}
	t.Run("old formats", func(t *testing.T) {
		for _, kind := range []string{"ecdsa", "rsa"} {
			old := filepath.Join(t.TempDir(), kind)
			captureCommand(t, "cp", s.UserKeys[kind], old)
			captureCommand(t, "ssh-keygen", "-q", "-p", "-m", "PEM", "-N", "", "-f", old)
			sshTargetMust(t, s, old, sshTargetKnown(t, s))
		}
	})
}

// TestOpenSSHCertificate: a host whose key an authority vouches for.
func TestOpenSSHCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, key := filepath.Join(dir, "ca"), filepath.Join(dir, "key")
	for _, file := range []string{ca, key} {
		captureCommand(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file)
	}
	captureCommand(t, "ssh-keygen", "-q", "-s", ca, "-I", "collector", "-h", "-n", "127.0.0.1", key+".pub")
	s := sshTargetServer(t, "Subsystem corehaul /bin/cat", "HostKey "+key, "HostCertificate "+key+"-cert.pub")
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(ca + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	sshTargetMust(t, s, s.UserKeys["ed25519"], sshTargetFile(t, "@cert-authority ["+host+"]:"+port+" "+string(public)))
}

// TestOpenSSHRefusals: what an operator reads who forgot something.
func TestOpenSSHRefusals(t *testing.T) {
	s, other := sshTargetServer(t), sshTargetServer(t)
	known := sshTargetKnown(t, s)
	foreign, err := other.Known(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	_, otherPort, err := net.SplitHostPort(other.Addr)
	if err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(t.TempDir(), "locked")
	captureCommand(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked)
	elf := failoverELF(t)
	for name, tc := range map[string]struct {
		key, known, says, hint string
		code                   int // 2 for a file that is no use, whoever answers
	}{
		"foreign key":     {other.UserKeys["rsa"], known, `does not let "root" in with the key`, "ssh-rsa AAAA", 1},
		"another host":    {s.UserKeys["rsa"], sshTargetFile(t, strings.ReplaceAll(foreign, otherPort, port)), "which is not the one in", "find out who answers", 1},
		"unknown host":    {s.UserKeys["rsa"], sshTargetFile(t, foreign), "has no key of [127.0.0.1]:" + port, "ssh-keyscan -p " + port + " 127.0.0.1", 2},
		"key is locked":   {locked, known, "has a passphrase", "ssh-keygen -p", 2},
		"key is a public": {s.UserKeys["rsa"] + ".pub", known, "public key", "without .pub", 2},
	} {
		t.Run(name, func(t *testing.T) {
			_, said := judgesRun(t, tc.code, "corehaul-send", "send", "--to", "ssh://root@"+s.Addr, "--ssh-key", tc.key, "--known-hosts", tc.known, "--patience", "1s", elf)
			if !strings.Contains(said, tc.says) || !strings.Contains(said, tc.hint) {
				t.Errorf("it says %q, want %q and %q", said, tc.says, tc.hint)
			}
		})
	}
}

// TestOpenSSHGone: servers that are there and do not let anybody in, and what they run that ends
// at once.
func TestOpenSSHGone(t *testing.T) {
	s := sshTargetServer(t, "Subsystem corehaul /bin/false")
	elf := failoverELF(t)
	args := []string{"send", "--ssh-key", s.UserKeys["ed25519"], "--known-hosts", sshTargetKnown(t, s), "--patience", "2s", "--to", "ssh://root@" + s.Addr, elf}
	_, said := judgesRun(t, 1, "corehaul-send", args...)
	if !strings.Contains(said, "connection to the receiver: EOF; next try in") {
		t.Errorf("it says %q", said)
	}
	s.Stop()
	if _, said := judgesRun(t, 1, "corehaul-send", args...); !strings.Contains(said, "connection refused") {
		t.Errorf("it says %q", said)
	}
}
