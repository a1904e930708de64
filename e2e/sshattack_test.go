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
)

// sftp runs commands of sftp(1), all of which have to fail if code is not 0.
func (c *stockClient) sftp(t *testing.T, code int, command string) (stdout, stderr string) {
	t.Helper()
	return c.run(t, code, command+"\n", c.argv("sftp", "-b", "-", c.host)...)
}

// attackSealed has a host send a dump in the way of Red Hat's kdump and waits until it is sealed.
func attackSealed(t *testing.T, s *sshServeStore, host string) serveDump {
	t.Helper()
	argv, _ := stockMakedumpfile(t, "-F", "-l", "-d", "31")
	c := s.client(t, host)
	c.ssh(t, 0, "", "mkdir -p /d")
	c.pipe(t, argv, "umask 0077 && dd of='/d/vmcore-incomplete'")
	c.ssh(t, 0, "", "mv '/d/vmcore-incomplete' '/d/vmcore.flat'")
	return s.await(t, "complete")
}

// TestAttackDumps has another host, and the host itself, try to get at a sealed dump.
func TestAttackDumps(t *testing.T) {
	s := sshServe(t)
	dump := attackSealed(t, s, "web-17")
	own, other := s.client(t, "web-17"), s.client(t, "web-18")
	loot := filepath.Join(t.TempDir(), "loot")
	mine := stockFile(t, "mine", "not a dump\n")
	vmcore := filepath.Join(dump.Path, "vmcore")
	paths := []string{
		"/d/vmcore.flat", "d/vmcore.flat", "../web-17/d/vmcore.flat", "/../../web-17/d/vmcore.flat", vmcore, strings.Repeat("../", 12) + vmcore[1:],
		s.data + "/index.db", s.data + "/ssh_host_ed25519_key", "/etc/passwd", "../web-17/tree.json", "/proc/self/environ",
	}
	for _, p := range paths {
		for _, flags := range scpFlags {
			other.scp(t, 1, flags, ":"+p, loot)
			own.scp(t, 1, flags, ":"+p, loot)
		}
		other.ssh(t, 2, "", "ls -l '"+p+"'")
		other.sftp(t, 1, "get "+p+" "+loot)
		other.sftp(t, 1, "rm "+p)
		own.sftp(t, 1, "rm "+p)
		own.sftp(t, 1, "ln -s "+p+" /d/link")
		own.sftp(t, 1, "ln "+p+" /d/link")
	}
	if _, err := os.Stat(loot); err == nil {
		t.Error("something was brought back")
	}
	if out, _ := other.sftp(t, 0, "ls -la /"); strings.Contains(out, "d") && strings.Contains(out, "vmcore") {
		t.Errorf("another host sees %q", out)
	}
	other.scp(t, 0, []string{"-q", "-r"}, ":/", loot+"-all")
	if names, err := filepath.Glob(loot + "-all/*"); err != nil || len(names) > 0 {
		t.Errorf("scp -r brought %q, %v", names, err)
	}

	// What the other host writes to these paths is in its own tree.
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		for _, flags := range scpFlags {
			other.scp(t, 0, flags, mine, ":"+p)
		}
		other.ssh(t, 0, "x", "cat > '"+p+"'")
	}
	if now, err := os.ReadFile("/etc/passwd"); err != nil || !bytes.Equal(now, passwd) {
		t.Errorf("/etc/passwd is changed: %v", err)
	}
	// The host itself may send more, and nothing of it touches the dump.
	for _, command := range []string{"put " + mine + " /d/vmcore.flat", "put " + mine + " /d/x", "rename /d/x /d/vmcore.flat", "rename /d/vmcore.flat /d/y", "rmdir /d"} {
		_ = own.try(t, command+"\n", own.argv("sftp", "-b", "-", own.host)...)
	}
	judgesRun(t, 0, "corehaul", "verify", dump.ID, "--data", s.data)
	if text, err := os.ReadFile(filepath.Join(dump.Path, "SHA256SUMS")); err != nil || len(text) == 0 {
		t.Errorf("the dump is not where it was: %v", err)
	}
	list := s.list(t)
	if i := slices.IndexFunc(list, func(d serveDump) bool { return d.ID == dump.ID }); i < 0 || list[i].Manifest.State != "complete" {
		t.Errorf("the dumps are now %+v", list)
	}
}

// try runs a program, however it ends.
func (c *stockClient) try(t *testing.T, in string, argv ...string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(in)
	return cmd.Run()
}

// TestAttackCommands tries to have something executed, or carried on.
func TestAttackCommands(t *testing.T) {
	s := sshServe(t)
	c := s.client(t, "web-17")
	mark := filepath.Join(t.TempDir(), "executed")
	for _, command := range []string{
		"touch " + mark, "mkdir -p /a; touch " + mark, "mkdir -p /a && touch " + mark, "mkdir -p $(touch " + mark + ")", "mkdir -p `touch " + mark + "`",
		"mkdir -p /a | touch " + mark, "mkdir -p /a & touch " + mark, "dd of=/a\ntouch " + mark, "cat > >(touch " + mark + ")", "sh -c 'touch " + mark + "'",
		"scp -t /a; touch " + mark, "scp -S 'touch " + mark + "' -t /a", "echo $HOME > /a", "cat < /etc/passwd > /a", "dd if=/etc/passwd of=/a", "eval exit", "/bin/sh", "internal-sftp", "rsync --server . /",
	} {
		if _, said := c.ssh(t, 127, "", command); strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "corehaul: ") {
			t.Errorf("%q is answered with %q", command, said)
		}
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("something was executed")
	}
	for _, args := range [][]string{
		{"-tt", c.host, "exit"},
		{"-s", c.host, "netconf"},
		{"-W", "127.0.0.1:22", c.host},
		{"-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22", c.host},
		{"-N", "-o", "ExitOnForwardFailure=yes", "-R", mark + ":/x", c.host},
		{"-o", "PreferredAuthentications=password", "-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=0", c.host, "exit"},
		{"-o", "PreferredAuthentications=keyboard-interactive", c.host, "exit"},
		{"-o", "PreferredAuthentications=none", c.host, "exit"},
		{"-o", "HostKeyAlgorithms=ssh-rsa", c.host, "exit"},
		{"-o", "KexAlgorithms=diffie-hellman-group14-sha1", c.host, "exit"},
	} {
		c.run(t, 255, "", c.argv("ssh", args...)...)
	}
	c.run(t, 127, "", c.argv("ssh", c.host)...)                   // a shell
	c.ssh(t, 0, "", "exit")                                       // it lives
	c.run(t, 0, "", c.argv("ssh", "-A", "-X", c.host, "exit")...) // agent and X11 are asked for and not there
	for _, want := range []string{"request=pty-req", "subsystem=netconf", "type=direct-tcpip", "request=tcpip-forward", "host=web-17", "key=SHA256:"} {
		if !strings.Contains(s.said(t), want) {
			t.Errorf("the log lacks %s", want)
		}
	}
}

// TestAttackKeys tries keys that are not enrolled, or not any more.
func TestAttackKeys(t *testing.T) {
	s := sshServe(t)
	c := s.client(t, "web-17")
	stranger := filepath.Join(t.TempDir(), "stranger")
	captureCommand(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "root@web-99", "-f", stranger)
	s.keys["stranger"] = stranger
	if _, said := s.client(t, "stranger").ssh(t, 255, "", "exit"); !strings.Contains(said, "Permission denied (publickey") || !strings.Contains(said, "is not enrolled") {
		t.Errorf("a stranger hears %q", said)
	}
	home := t.TempDir() // where ssh-copy-id keeps a scratch file
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	copyID := []string{"env", "HOME=" + home, "ssh-copy-id", "-i", stranger + ".pub", "-p", c.port}
	for who, options := range map[string][]string{
		"with a key that is let in": append(sshCopyOptions(c.options), "-f"), // the snippet that it sends is refused
		"as a stranger":             {"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + c.known},
	} {
		if _, said := c.run(t, 1, "", slices.Concat(copyID, options, []string{c.host})...); !strings.Contains(said, "authorized keys with host=") {
			t.Errorf("ssh-copy-id %s hears %q", who, said)
		}
	}

	c.ssh(t, 0, "", "mkdir -p /d")
	busy := exec.CommandContext(t.Context(), "ssh", c.argv("ssh", c.host, "cat > /d/endless")[1:]...)
	stdin, err := busy.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	var said bytes.Buffer
	busy.Stderr = &said
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	for range 600 { // it is under way
		if out, _ := c.run(t, 0, "", c.argv("ssh", c.host, "ls -l /d")...); strings.Contains(out, "endless") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	authorized := s.flags[slices.Index(s.flags, "--authorized-keys")+1]
	text, err := os.ReadFile(authorized)
	if err != nil {
		t.Fatal(err)
	}
	kept := slices.DeleteFunc(strings.SplitAfter(string(text), "\n"), func(l string) bool { return strings.HasSuffix(l, " web-17\n") })
	if err := os.WriteFile(authorized, []byte(strings.Join(kept, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	c.ssh(t, 255, "", "exit")
	s.client(t, "web-18").ssh(t, 0, "", "exit")
	var exit *exec.ExitError
	if err := busy.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 255 {
		t.Errorf("what a revoked key had begun ended with %v, %s", err, said.String())
	}
}

// sshCopyOptions are the options that ssh-copy-id passes on, which knows no others.
func sshCopyOptions(options []string) (some []string) {
	for i := 0; i+1 < len(options); i += 2 {
		switch options[i] {
		case "-o":
			some = append(some, options[i], options[i+1])
		case "-i":
			some = append(some, "-o", "IdentityFile="+options[i+1])
		}
	}
	return some
}

// TestAttackChannels has one client open more sessions over one connection than a host may have.
func TestAttackChannels(t *testing.T) {
	c := sshServe(t).client(t, "web-17")
	socket := filepath.Join(t.TempDir(), "mux")
	mux := []string{"-o", "ControlPath=" + socket}
	master := exec.CommandContext(t.Context(), "ssh", append(c.argv("ssh", mux...)[1:], "-M", "-N", c.host)...)
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = master.Process.Kill(); _ = master.Wait() }() // it keeps nothing
	for range 600 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.ssh(t, 0, "", "mkdir -p /d")
	var open []*exec.Cmd
	var ends []func() error
	for i := range 32 {
		cmd := exec.CommandContext(t.Context(), "ssh", append(c.argv("ssh", mux...)[1:], c.host, fmt.Sprintf("cat > /d/%d", i))...)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		open, ends = append(open, cmd), append(ends, stdin.Close)
	}
	other := c.client(t, "web-18")
	for range 600 {
		if err := c.try(t, "", c.argv("ssh", c.host, "exit")...); err != nil {
			break // all are open
		}
		time.Sleep(50 * time.Millisecond)
	}
	for range 20 {
		if err := c.try(t, "", append(c.argv("ssh", mux...), "-o", "ControlMaster=no", c.host, "exit")...); err == nil {
			t.Error("a session beyond the limit was opened")
		}
	}
	other.ssh(t, 0, "", "exit")
	for i, end := range ends {
		if err := errors.Join(end(), open[i].Wait()); err != nil {
			t.Errorf("session %d ended with %v", i, err)
		}
	}
	c.ssh(t, 0, "", "exit")
}
