package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// SSHD is an OpenSSH server on the loopback address that takes one key.
type SSHD struct {
	// Client is the command line of an ssh that is let in; a remote command follows.
	Client []string
	cmd    *exec.Cmd
	log    string
}

// sshdConfig lets root in by key from wherever the files lie, without PAM.
const sshdConfig = `ListenAddress 127.0.0.1
Port %d
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
`

// StartSSHD starts OpenSSH's server with keys of its own, which it keeps in dir. Stop ends it.
func StartSSHD(ctx context.Context, dir string) (*SSHD, error) {
	host, user := filepath.Join(dir, "ssh_host_key"), filepath.Join(dir, "ssh_user_key")
	for _, key := range []string{host, user} {
		if _, err := run(ctx, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key); err != nil {
			return nil, err
		}
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "sshd_config")
	text := fmt.Sprintf(sshdConfig, port, host, user+".pub")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // privilege separation; Debian's service makes it
		return nil, err
	}
	s := &SSHD{log: filepath.Join(dir, "sshd.log"), Client: []string{
		"ssh", "-F", "none", "-q", "-i", user, "-p", strconv.Itoa(port), "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + filepath.Join(dir, "known_hosts"), "root@127.0.0.1",
	}}
	// The server outlives the context of a call; Stop ends it.
	s.cmd = exec.CommandContext(context.WithoutCancel(ctx), "/usr/sbin/sshd", "-D", "-E", s.log, "-f", conf)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// freePort asks the system for a port that nobody has now. sshd cannot say which one it took.
func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return 0, err
	}
	if err := l.Close(); err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// ready waits until a client gets through.
func (s *SSHD) ready(ctx context.Context) error {
	var err error
	for range 50 {
		if _, err = run(ctx, "", s.Client[0], append(s.Client[1:], "true")...); err == nil {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	log, _ := os.ReadFile(s.log) // the error is about the client
	return fmt.Errorf("lab: sshd lets nobody in: %w: %s", err, tail(string(log), 10))
}

// Stop ends the server.
func (s *SSHD) Stop() {
	_ = s.cmd.Process.Kill() // it keeps nothing
	_ = s.cmd.Wait()
}
