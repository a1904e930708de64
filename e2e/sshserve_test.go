package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// sshServeStore is a receiver that lets hosts in over SSH.
type sshServeStore struct {
	*judgesStore
	known string            // known_hosts file with its keys
	keys  map[string]string // private keys by host
}

// sshServeHosts are the hosts of such a receiver, and the kinds of their keys.
var sshServeHosts = map[string]string{"web-17": "rsa", "web-18": "ed25519", "db-1": "ecdsa"}

// sshServe starts a receiver with an SSH server beside TLS, which ends with the test.
func sshServe(tb testing.TB, flags ...string) *sshServeStore {
	tb.Helper()
	dir := tb.TempDir()
	authorized := filepath.Join(dir, "authorized_keys")
	s := &sshServeStore{known: filepath.Join(dir, "known_hosts"), keys: map[string]string{}}
	var lines []byte
	for host, kind := range sshServeHosts {
		key := filepath.Join(dir, host)
		if err := lab.WriteSSHKey(tb.Context(), kind, key, host); err != nil {
			tb.Fatal(err)
		}
		public, err := os.ReadFile(key + ".pub")
		if err != nil {
			tb.Fatal(err)
		}
		lines = append(lines, public...)
		s.keys[host] = key
	}
	if err := os.WriteFile(authorized, lines, 0o600); err != nil {
		tb.Fatal(err)
	}
	s.judgesStore = judgesServe(tb, append([]string{"--ssh", "127.0.0.1:0", "--authorized-keys", authorized}, flags...)...)
	u := s.sshURL(tb)
	known, _ := judgesRun(tb, 0, "corehaul", "known-hosts", u.Host, "--data", s.data)
	if err := os.WriteFile(s.known, []byte(known), 0o600); err != nil {
		tb.Fatal(err)
	}
	return s
}

func (s *sshServeStore) sshURL(tb testing.TB) *url.URL {
	tb.Helper()
	u, err := url.Parse(s.ssh)
	if err != nil || u.Scheme != "ssh" {
		tb.Fatalf("the receiver listens on %q, want ssh://, %v", s.ssh, err)
	}
	return u
}

// TestSSHServe sends a dump over each kind of key.
func TestSSHServe(t *testing.T) {
	s := sshServe(t)
	elf := failoverELF(t)
	for host := range sshServeHosts {
		args := []string{"send", "--to", "ssh://kdump@" + s.sshURL(t).Host, "--ssh-key", s.keys[host], "--known-hosts", s.known, "--level", "31", elf}
		judgesRun(t, 0, "corehaul-send", args...)
		s.checkServed(t, host)
		judgesRun(t, 0, "corehaul", "rm", s.one(t).ID, "--data", s.data)
	}
}

// checkServed looks at the only dump.
func (s *judgesStore) checkServed(t *testing.T, host string) {
	t.Helper()
	dump := s.one(t)
	if dump.Host != host || dump.Manifest.State != "complete" {
		t.Errorf("host %s sent a dump that is filed as %s, %s", host, dump.Host, dump.Manifest.State)
	}
	judgesRun(t, 0, "corehaul", "verify", dump.ID, "--data", s.data)
	text, err := os.ReadFile(filepath.Join(dump.Path, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ Transport, Peer string }
	if err := json.Unmarshal(text, &m); err != nil || m.Transport != "ssh" || !strings.HasPrefix(m.Peer, "127.0.0.1:") {
		t.Errorf("it came over %q from %q, %v", m.Transport, m.Peer, err)
	}
}

// TestReceiveStdio has OpenSSH's server hand connections over: by its subsystem, and by a command
// that a key is held to.
func TestReceiveStdio(t *testing.T) {
	s := judgesServe(t)
	elf := failoverELF(t)
	program, err := filepath.Abs(judgesBin + "corehaul")
	if err != nil {
		t.Fatal(err)
	}
	handOver := fmt.Sprintf("%s receive --stdio --data %s --host ", program, s.data)
	server := sshTargetServer(t, "Subsystem corehaul "+handOver+"web-17")
	send := func(code int) string {
		t.Helper()
		_, said := judgesRun(t, code, "corehaul-send", "send", "--to", "ssh://root@"+server.Addr, "--ssh-key", server.UserKeys["rsa"],
			"--known-hosts", sshTargetKnown(t, server), "--patience", "1s", "--level", "31", elf)
		return said
	}
	send(0)
	s.checkServed(t, "web-17")

	keys := filepath.Join(filepath.Dir(server.UserKeys["rsa"]), "authorized_keys")
	public, err := os.ReadFile(server.UserKeys["rsa"] + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	forced := fmt.Sprintf("restrict,command=%q %s", handOver+"web-18", public)
	if err := os.WriteFile(keys, []byte(forced), 0o600); err != nil {
		t.Fatal(err)
	}
	judgesRun(t, 0, "corehaul", "rm", s.one(t).ID, "--data", s.data)
	send(0)
	s.checkServed(t, "web-18")

	s.end(t)
	if said := send(1); !strings.Contains(said, "gives up") && !strings.Contains(said, "EOF") {
		t.Errorf("without a receiver the sender says %q", said)
	}
	_, said := judgesRun(t, 1, "corehaul", "receive", "--stdio", "--data", s.data, "--host", "web-17")
	if !strings.Contains(said, "no server is running") || !strings.Contains(said, "hint:") {
		t.Errorf("without a receiver it says %q", said)
	}
}
