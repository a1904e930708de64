package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// sshSendServe starts a receiver that is reached over SSH as well, and returns the key that a host
// of this name has.
func sshSendServe(t *testing.T, host string) (s *judgesStore, key string) {
	t.Helper()
	dir := t.TempDir()
	key = filepath.Join(dir, "key")
	captureCommand(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host, "-f", key)
	return judgesServe(t, "--authorized-keys", key+".pub"), key
}

// sshKnown writes a known_hosts file with the receiver's keys under an address, which leads to it.
func (s *judgesStore) sshKnown(t *testing.T, address string) string {
	t.Helper()
	lines, _ := judgesRun(t, 0, "corehaul", "known-hosts", address, "--data", s.data)
	return sshTargetFile(t, lines)
}

func (s *judgesStore) sshAddress() string { return strings.TrimPrefix(s.ssh, "ssh://") }

// TestSSHSend sends a dump over SSH and over TLS: page by page they are the same.
func TestSSHSend(t *testing.T) {
	elf := failoverELF(t)
	s, key := sshSendServe(t, "web-18")
	judgesRun(t, 0, "corehaul-send", "send", "--to", "ssh://dumps@"+s.sshAddress(), "--ssh-key", key, "--known-hosts", s.sshKnown(t, s.sshAddress()), "--level", "1", elf)
	judgesSealed(t, s.one(t).Path)
	one := s.one(t)
	if one.Host != "web-18" || one.Manifest.State != "complete" {
		t.Errorf("a dump of %s, %s, want one of web-18, complete", one.Host, one.Manifest.State)
	}
	judgesRun(t, 0, "corehaul", "verify", "--data", s.data, one.ID)
	want := judgesPages(t, filepath.Join(judgesServe(t).send(t, elf, "1"), "vmcore"))
	if got := judgesPages(t, filepath.Join(one.Path, "vmcore")); got != want {
		t.Errorf("over SSH %+v, over TLS %+v", got, want)
	}
}

// TestSSHKill kills the sender and the receiver with SIGKILL at random instants of one dump over
// SSH, and compares it with one that came over TLS in peace.
func TestSSHKill(t *testing.T) {
	seed := killSeed(t)
	elf := failoverELF(t)
	want := filepath.Join(judgesServe(t).send(t, elf, "1", "--encoding", "snappy"), "vmcore")
	fi, err := os.Stat(want)
	if err != nil {
		t.Fatal(err)
	}
	s, key := sshSendServe(t, "web-17")
	l := newLine(t, s.sshAddress())
	l.slow(t, killRate)
	d := &killDump{store: s, line: l, args: []string{
		"--to", "ssh://dumps@" + l.Listen, "--ssh-key", key, "--known-hosts", s.sshKnown(t, l.Listen),
		"--level", "1", "--encoding", "snappy", "--workers", "2", elf,
	}}
	d.sender = serveSend(t, nil, d.args...)
	d.disturb(t, rand.New(rand.NewPCG(seed, 0)), fi.Size())
	if code, _ := d.sender.wait(t); code != 0 {
		t.Fatalf("the last sender: exit code %d\n%s", code, d.sender.said())
	}
	d.compare(t, want)
	t.Logf("%d sessions with %d kills", strings.Count(s.said(t), `msg="session began"`), 2*killsEach)
}

// TestSSHFailover: the first receiver of a list, over SSH, is killed for good in the middle of a
// dump, which the second one gets over TLS.
func TestSSHFailover(t *testing.T) {
	elf := failoverELF(t)
	first, key := sshSendServe(t, "web-17")
	slow := newLine(t, first.sshAddress())
	slow.slow(t, failoverRate)
	second := judgesServe(t)
	p := serveSend(t, nil, "--to", "ssh://dumps@"+slow.Listen, "--ssh-key", key, "--known-hosts", first.sshKnown(t, slow.Listen),
		"--to", second.target, "--identity", second.identity, "--encoding", "snappy", elf)
	d := &killDump{store: first}
	serveWait(t, "the first pages", func() bool { return d.arrived(t) > 8<<20 })
	first.kill(t)
	if code, _ := p.wait(t); code != 0 {
		t.Fatalf("the sender: exit code %d\n%s", code, p.said())
	}
	if one := second.one(t); one.Manifest.State != "complete" {
		t.Errorf("on the second: %s, want complete", one.Manifest.State)
	}
}

// TestSSHCapture lets a machine panic whose capture kernel sends over SSH.
func TestSSHCapture(t *testing.T) {
	t.Parallel()
	s, key := sshSendServe(t, captureHost)
	address := lab.HostFromGuest + ":" + capturePort(t, s.sshAddress())
	initrd := capturePack(t, "6.1", fmt.Sprintf("to = [\"ssh://dumps@%s\"]\nssh_key = %q\nknown_hosts = %q\npatience = \"5m\"\n",
		address, key, s.sshKnown(t, address)))
	said := captureRun(t, lab.Scenario{Kernel: "6.1", MemMiB: 1 << 10}, initrd, lab.SenderOptions{})
	captureCheckConsole(t, said)
	s.checkCaptured(t)
}
