package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// sftpArgs are the arguments of a sender to a plain SSH server, for a store in dir there.
func sftpArgs(t *testing.T, s *lab.SSHD, dir string) []string {
	t.Helper()
	return []string{"--to", "ssh://root@" + s.Addr + dir, "--ssh-key", s.UserKeys["ed25519"], "--known-hosts", sshTargetKnown(t, s)}
}

// sftpList lists a store that no receiver has ever served.
func sftpList(t *testing.T, dir string) []serveDump {
	t.Helper()
	judgesRun(t, 0, "corehaul", "reindex", "--data", dir)
	out, _ := judgesRun(t, 0, "corehaul", "ls", "--json", "--data", dir)
	var list struct{ Dumps []serveDump }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	return list.Dumps
}

// TestSFTPSend sends a dump to OpenSSH's server, where there is no corehaul: page by page it is
// as over TLS, and what reads dumps reads it.
func TestSFTPSend(t *testing.T) {
	elf := failoverELF(t)
	want := judgesPages(t, filepath.Join(judgesServe(t).send(t, elf, "1"), "vmcore"))
	s := sshTargetServer(t)
	dir := filepath.Join(t.TempDir(), "store")
	args := append([]string{"send", "--level", "1"}, append(sftpArgs(t, s, dir), elf)...)
	_, said := judgesRun(t, 0, "corehaul-send", args...)
	t.Log(said)
	sftpCheck(t, dir, want)
	if out, _ := judgesRun(t, 0, "corehaul-send", args...); !strings.Contains(out, "dump complete already") {
		t.Errorf("sent once more, it says %q", out)
	}
}

// sftpKills is how often each side is killed. Each time the other writer's lock has to become stale first.
const sftpKills = 2

// TestSFTPKill kills the sender, and the server with all that it runs, in the middle of one dump.
func TestSFTPKill(t *testing.T) {
	t.Parallel() // it waits more than it computes
	elf := failoverELF(t)
	peace := filepath.Join(judgesServe(t).send(t, elf, "1", "--encoding", "snappy"), "vmcore")
	fi, err := os.Stat(peace)
	if err != nil {
		t.Fatal(err)
	}
	s := sshTargetServer(t)
	l := newLine(t, s.Addr)
	l.slow(t, killRate)
	dir := filepath.Join(t.TempDir(), "store")
	known, err := os.ReadFile(sshTargetKnown(t, s))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{
		"--to", "ssh://root@" + l.Listen + dir, "--ssh-key", s.UserKeys["rsa"],
		"--known-hosts", sshTargetFile(t, strings.ReplaceAll(string(known), capturePort(t, s.Addr), capturePort(t, l.Listen))),
		"--level", "1", "--encoding", "snappy", elf,
	}
	d := &killDump{store: &judgesStore{data: dir}}
	p := serveSend(t, nil, args...)
	for i := range int64(2 * sftpKills) {
		serveWait(t, "more of the dump", func() bool {
			select {
			case <-p.closed:
				t.Fatalf("the sender ended before kill %d:\n%s", i+1, p.said())
			default:
			}
			return d.arrived(t) > (i+1)*fi.Size()/(2*sftpKills+2)
		})
		if i%2 == 0 {
			p.kill(t)
			p = serveSend(t, nil, args...)
			continue
		}
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if code, _ := p.wait(t); code != 0 {
		t.Fatalf("the last sender: exit code %d\n%s", code, p.said())
	}
	t.Log(p.said())
	sftpCheck(t, dir, judgesPages(t, peace))
}

// TestSFTPCapture lets a machine panic whose capture kernel finds nothing but an SFTP server, which
// starts where the dumps are to go.
func TestSFTPCapture(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := sshTargetServer(t, "ForceCommand internal-sftp -d "+dir)
	address := lab.HostFromGuest + ":" + capturePort(t, s.Addr)
	known, err := os.ReadFile(sshTargetKnown(t, s))
	if err != nil {
		t.Fatal(err)
	}
	initrd := capturePack(t, "6.1", fmt.Sprintf("to = [\"ssh://root@%s\"]\nssh_key = %q\nknown_hosts = %q\npatience = \"5m\"\n",
		address, s.UserKeys["ecdsa"], sshTargetFile(t, strings.ReplaceAll(string(known), "127.0.0.1", lab.HostFromGuest))))
	said := captureRun(t, lab.Scenario{Kernel: "6.1", MemMiB: 8 << 10}, initrd, lab.SenderOptions{})
	captureCheckConsole(t, said)
	store := filepath.Join(dir, "corehaul")
	list := sftpList(t, store)
	if len(list) != 1 || list[0].Manifest.State != "complete" || !strings.Contains(list[0].Manifest.PanicLine, capturePanic) {
		t.Fatalf("in the store: %+v, want one complete dump of %q", list, capturePanic)
	}
	judgesRun(t, 0, "corehaul", "verify", "--data", store, list[0].ID)
	judgesPages(t, filepath.Join(list[0].Path, "vmcore"))
}

// sftpCheck looks at the only dump of a store.
func sftpCheck(t *testing.T, dir string, want lab.Pages) {
	t.Helper()
	list := sftpList(t, dir)
	if len(list) != 1 || list[0].Manifest.State != "complete" {
		t.Fatalf("in the store: %+v, want one complete dump", list)
	}
	judgesRun(t, 0, "corehaul", "verify", "--data", dir, list[0].ID)
	if got := judgesPages(t, filepath.Join(list[0].Path, "vmcore")); got != want {
		t.Errorf("over SFTP %+v, over TLS %+v", got, want)
	}
	if _, err := os.Stat(filepath.Join(list[0].Path, "writer.lock")); !os.IsNotExist(err) {
		t.Errorf("the lock is there: %v", err)
	}
}
