package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// stockClient is a machine with OpenSSH's programs and a key, and no corehaul.
type stockClient struct {
	*sshServeStore
	host, port string
	options    []string // of ssh, scp and sftp
}

// client returns the client that has the key of a host.
func (s *sshServeStore) client(tb testing.TB, host string) *stockClient {
	tb.Helper()
	u := s.sshURL(tb)
	return &stockClient{sshServeStore: s, host: "kdump@" + u.Hostname(), port: u.Port(), options: []string{
		"-F", "none", "-i", s.keys[host], "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + s.known,
	}}
}

// run runs a program of OpenSSH's and checks its exit status.
func (c *stockClient) run(t *testing.T, code int, in string, argv ...string) (stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errOut
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("%q: exit status %d, want %d\n%s%s", argv[len(argv)-1], got, code, out.String(), errOut.String())
	}
	return out.String(), errOut.String()
}

// argv is the command line of a program; ssh names the port otherwise than the others.
func (c *stockClient) argv(program string, args ...string) []string {
	port := "-P"
	if program == "ssh" {
		port = "-p"
	}
	return slices.Concat([]string{program, port, c.port}, c.options, args)
}

// ssh runs a remote command.
func (c *stockClient) ssh(t *testing.T, code int, in, command string) (stdout, stderr string) {
	t.Helper()
	return c.run(t, code, in, c.argv("ssh", c.host, command)...)
}

// scp copies; a path that begins with a colon is the server's.
func (c *stockClient) scp(t *testing.T, code int, flags []string, from, to string) (stderr string) {
	t.Helper()
	args := slices.Clone(flags)
	for _, p := range []string{from, to} {
		if strings.HasPrefix(p, ":") {
			p = c.host + p
		}
		args = append(args, p)
	}
	_, stderr = c.run(t, code, "", c.argv("scp", args...)...)
	return stderr
}

// pipe runs a pipeline whose last part is a remote command.
func (c *stockClient) pipe(t *testing.T, argv []string, command string) {
	t.Helper()
	var line []string
	for _, words := range [][]string{argv, c.argv("ssh", c.host, command)} {
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		line = append(line, strings.Join(quoted, " "))
	}
	captureCommand(t, "bash", "-c", "set -o pipefail; "+strings.Join(line, " | "))
}

// await waits until the only dump is sealed.
func (s *judgesStore) await(t *testing.T, state string) serveDump {
	t.Helper()
	for range 600 {
		if list := s.list(t); len(list) == 1 && list[0].Manifest.State != "arriving" {
			if got := list[0].Manifest.State; got != state {
				t.Errorf("the dump is %s (%s), want %s", got, list[0].Manifest.Reason, state)
			}
			code := 0
			if state == "partial" {
				code = 3
			}
			judgesRun(t, code, "corehaul", "verify", list[0].ID, "--data", s.data)
			return list[0]
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Fatal("no dump is sealed")
	return serveDump{}
}

// stockMakedumpfile is the command that writes a stream of the dump to standard output.
func stockMakedumpfile(t *testing.T, flags ...string) (argv []string, elf string) {
	t.Helper()
	k, err := lab.GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	elf = failoverELF(t)
	if argv, err = k.MakedumpfileCommand(t.Context(), slices.Concat(flags, []string{elf})...); err != nil {
		t.Fatal(err)
	}
	return argv, elf
}

// scpFlags are the ways of scp: over SFTP, and as it was before OpenSSH 9.
var scpFlags = map[string][]string{"scp": {"-q"}, "scp -O": {"-q", "-O"}}

// TestStockRedHat does what the capture kernel of Red Hat's kdump does.
func TestStockRedHat(t *testing.T) {
	t.Parallel()
	argv, _ := stockMakedumpfile(t, "-F", "-l", "--message-level", "7", "-d", "31")
	for name, flags := range scpFlags {
		t.Run(name, func(t *testing.T) {
			s := sshServe(t)
			c := s.client(t, "web-17")
			dir := "/var/crash//10.0.0.7-2026-03-01-12:00:07"
			c.ssh(t, 0, "", "mkdir -p "+dir)
			_, said := c.ssh(t, 0, "[    0.000000] Linux version 6.1\n", "umask 0077 && dd of='"+dir+"/vmcore-dmesg-incomplete.txt'")
			if lines := strings.Split(said, "\n"); len(lines) != 4 || !strings.HasSuffix(lines[1], "records out") || !strings.HasPrefix(lines[2], "33 bytes copied, ") {
				t.Errorf("dd says %q", said)
			}
			c.ssh(t, 0, "", "mv "+dir+"/vmcore-dmesg-incomplete.txt "+dir+"/vmcore-dmesg.txt")
			c.pipe(t, argv, "umask 0077 && dd bs=512 of='"+dir+"/vmcore-incomplete'")
			c.ssh(t, 0, "", "mv '"+dir+"/vmcore-incomplete' '"+dir+"/vmcore.flat'")
			c.scp(t, 0, flags, stockFile(t, "kexec-dmesg.log", "the capture kernel's log\n"), ":"+dir+"/")
			dump := s.await(t, "complete")
			if dump.Host != "web-17" || !strings.HasPrefix(dump.Manifest.Release, "6.1") {
				t.Errorf("filed as %+v", dump)
			}
			c.scp(t, 1, flags, ":"+dir+"/vmcore.flat", filepath.Join(t.TempDir(), "stolen"))
		})
	}
}

// TestStockDebian does what kdump-tools does, with compression.
func TestStockDebian(t *testing.T) {
	t.Parallel()
	argv, _ := stockMakedumpfile(t, "-F", "-c", "-d", "31")
	for name, flags := range scpFlags {
		t.Run(name, func(t *testing.T) {
			s := sshServe(t)
			c := s.client(t, "web-18")
			dir := "/var/crash/10.0.0.8-202603011200"
			c.ssh(t, 0, "", "mkdir -p "+dir)
			c.scp(t, 0, flags, stockFile(t, "dmesg.ssh.202603011200", "the log\n"), ":"+dir+"/dmesg.202603011200")
			gzip := []string{"bash", "-c", `"$@" | gzip -1`, "gzip"}
			c.pipe(t, slices.Concat(gzip, argv), "dd of="+dir+"/dump-incomplete.gz")
			c.ssh(t, 0, "", "mv "+dir+"/dump-incomplete.gz "+dir+"/dump.202603011200.gz")
			s.await(t, "complete")
		})
	}
}

// TestStockDebianRaw does what kdump-tools does when makedumpfile has failed: scp of the raw vmcore.
func TestStockDebianRaw(t *testing.T) {
	t.Parallel()
	_, elf := stockMakedumpfile(t)
	for name, flags := range scpFlags {
		t.Run(name, func(t *testing.T) {
			s := sshServe(t)
			c := s.client(t, "web-18")
			c.ssh(t, 0, "", "mkdir -p /d")
			c.scp(t, 0, flags, elf, ":/d/vmcore-incomplete")
			c.ssh(t, 0, "", "mv /d/vmcore-incomplete /d/vmcore.202603011200")
			s.await(t, "complete")
		})
	}
}

// TestStockSUSE does what kdump-save does: one ssh for each file, and a README that ends it.
func TestStockSUSE(t *testing.T) {
	t.Parallel()
	argv, _ := stockMakedumpfile(t, "-F", "-l", "-d", "31")
	s := sshServe(t)
	c := s.client(t, "db-1")
	dir := "/var/log/dump/db-1-2026-03-01-12-00"
	put := "umask 077; mkdir -p " + dir + " && cat > " + dir + "/"
	c.ssh(t, 0, "If you see this text the crash dump is likely incomplete.\n", put+"README.txt")
	c.ssh(t, 0, "the log\n", put+"dmesg")
	c.pipe(t, argv, put+"vmcore")
	c.ssh(t, 0, "Kernel crashdump\nvmcore status: saved successfully\n", put+"README.txt")
	s.await(t, "complete")
}

// TestStockChecks does what kdumpctl and mkdumprd do on the running system, and kdumpctl test.
func TestStockChecks(t *testing.T) {
	c := sshServe(t).client(t, "web-17")
	c.ssh(t, 0, "", "mkdir -p /var/crash")
	dir, _ := c.ssh(t, 0, "", "mktemp -dqp /var/crash")
	dir = strings.TrimSuffix(dir, "\n")
	if !strings.HasPrefix(dir, "/var/crash/") {
		t.Errorf("mktemp prints %q", dir)
	}
	c.ssh(t, 0, "", "rmdir "+dir)
	c.ssh(t, 1, "", "rmdir "+dir)
	avail, _ := c.ssh(t, 0, "", "df --output=avail /var/crash")
	var kib uint64
	if lines := strings.Fields(avail); len(lines) != 2 || lines[0] != "Avail" {
		t.Errorf("df prints %q", avail)
	} else if _, err := fmt.Sscan(lines[1], &kib); err != nil || kib == 0 {
		t.Errorf("df says %q are free", lines[1])
	}
	if out, _ := c.ssh(t, 0, "", "df -P /var/crash"); strings.Count(out, "\n") != 2 {
		t.Errorf("df -P prints %q", out)
	}
	status := "/var/crash/kdump-test-77/vmcore-creation.status"
	for _, word := range []string{"fail", "success"} {
		c.ssh(t, 0, "", "mkdir -p /var/crash/kdump-test-77")
		c.ssh(t, 0, "", "echo "+word+" kdump_test_id=77 > "+status)
		for name, flags := range scpFlags {
			got := filepath.Join(t.TempDir(), "status")
			c.scp(t, 0, flags, ":"+status, got)
			if text, err := os.ReadFile(got); err != nil || string(text) != word+" kdump_test_id=77\n" {
				t.Errorf("%s brought %q, %v", name, text, err)
			}
			c.scp(t, 1, flags, ":/var/crash/kdump-test-78/vmcore-creation.status", got)
		}
	}
	c.ssh(t, 0, "", "exit")
	if out, _ := c.ssh(t, 0, "", "ls -l "+status); !strings.Contains(out, " 26 ") && !strings.Contains(out, " 25 ") {
		t.Errorf("ls prints %q", out)
	}
}

// stockFile writes a file with a name.
func stockFile(tb testing.TB, name, text string) string {
	tb.Helper()
	p := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return p
}

// TestStockBrokenOff kills the client in the middle of a stream: what came is sealed as a partial dump, and nothing
// counts as whole.
func TestStockBrokenOff(t *testing.T) {
	t.Parallel()
	argv, _ := stockMakedumpfile(t, "-F", "-l", "-d", "31")
	flat := filepath.Join(t.TempDir(), "flat")
	stockPipe(t, argv, "", flat)
	stream, err := os.ReadFile(flat)
	if err != nil {
		t.Fatal(err)
	}
	s := sshServe(t, "--resume-grace", "3s")
	c := s.client(t, "web-17")
	c.ssh(t, 0, "", "mkdir -p /d")
	cmd := exec.CommandContext(t.Context(), "ssh", c.argv("ssh", c.host, "umask 0077 && dd bs=512 of='/d/vmcore-incomplete'")[1:]...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(stream[:len(stream)*3/4]); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	dump := s.await(t, "partial")
	if dump.Manifest.Pages.Present == 0 || dump.Manifest.Pages.Missing == 0 {
		t.Errorf("%d pages are there, %d missing", dump.Manifest.Pages.Present, dump.Manifest.Pages.Missing)
	}
	if log := s.said(t); !strings.Contains(log, "a command failed") {
		t.Error("the log does not say that the command failed")
	}
}
