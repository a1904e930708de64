package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// SSHD is an OpenSSH server on the loopback address. Root can log in with one key of each type.
type SSHD struct {
	// Addr is HOST:PORT.
	Addr string
	// HostKeys and UserKeys are the files of the private keys by their types, those of KeyKinds. The
	// public keys are beside them.
	HostKeys, UserKeys map[string]string
	// Client is the command line of an ssh that can log in. A remote command follows it.
	Client []string
	cmd    *exec.Cmd
	log    string
	conf   string
}

// KeyKinds are the types of keys, as ssh-keygen names them.
var KeyKinds = []string{"ed25519", "ecdsa", "rsa"}

// sshdConfig lets root log in by key, with files in any directory and without PAM.
const sshdConfig = `ListenAddress 127.0.0.1
Port %d
AuthorizedKeysFile %s
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
`

// StartSSHD starts OpenSSH's server with its own keys, in dir, and more lines of configuration. Stop
// ends it.
func StartSSHD(ctx context.Context, dir string, settings ...string) (*SSHD, error) {
	s := &SSHD{log: filepath.Join(dir, "sshd.log"), HostKeys: map[string]string{}, UserKeys: map[string]string{}}
	var authorized []byte
	for _, kind := range KeyKinds {
		host, user := filepath.Join(dir, "ssh_host_key_"+kind), filepath.Join(dir, "ssh_user_key_"+kind)
		for _, key := range []string{host, user} {
			if err := WriteSSHKey(ctx, kind, key, "root"); err != nil {
				return nil, err
			}
		}
		public, err := os.ReadFile(user + ".pub")
		if err != nil {
			return nil, err
		}
		authorized = append(authorized, public...)
		s.HostKeys[kind], s.UserKeys[kind] = host, user
		settings = append(settings, "HostKey "+host)
	}
	keys := filepath.Join(dir, "authorized_keys")
	if err := os.WriteFile(keys, authorized, 0o600); err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	conf := filepath.Join(dir, "sshd_config")
	text := fmt.Sprintf(sshdConfig, port, keys) + strings.Join(settings, "\n") + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // for privilege separation; Debian's service makes it
		return nil, err
	}
	s.Client = []string{
		"ssh", "-F", "none", "-q", "-i", s.UserKeys["ed25519"], "-p", strconv.Itoa(port), "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + filepath.Join(dir, "known_hosts"), "root@127.0.0.1",
	}
	s.conf = conf
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Start starts the server again after a Kill.
func (s *SSHD) Start(ctx context.Context) error {
	// The server outlives the context of a call. Stop ends it.
	s.cmd = exec.CommandContext(context.WithoutCancel(ctx), "/usr/sbin/sshd", "-D", "-E", s.log, "-f", s.conf)
	if err := s.cmd.Start(); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		s.Stop()
		return err
	}
	return nil
}

// Known returns lines of a known_hosts file for the host keys of these types, or of all types if none is named.
func (s *SSHD) Known(ctx context.Context, kinds ...string) (string, error) {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return "", err
	}
	if len(kinds) == 0 {
		kinds = KeyKinds
	}
	return run(ctx, "", "ssh-keyscan", "-t", strings.Join(kinds, ","), "-p", port, host)
}

// freePort asks the system for a free port, because sshd does not say which one it chose.
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

// ready waits until a client reaches SFTP, which every configuration has.
func (s *SSHD) ready(ctx context.Context) error {
	var err error
	for range 600 {
		if _, err = run(ctx, "", s.Client[0], slices.Concat([]string{"-s"}, s.Client[1:], []string{"sftp"})...); err == nil {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	log, _ := os.ReadFile(s.log) // the error of the client matters more
	return fmt.Errorf("lab: sshd lets nobody in: %w: %s", err, tail(string(log), 10))
}

// Kill kills the server and all processes that it started for clients, like a power cut.
func (s *SSHD) Kill() error {
	list, err := descendants(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	s.Stop() // first, so that it starts no more processes
	for _, pid := range list {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// descendants returns the descendants of a process.
func descendants(pid int) ([]int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the process has ended
	}
	if err != nil {
		return nil, err
	}
	var list []int
	for _, word := range strings.Fields(string(text)) {
		child, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		more, err := descendants(child)
		if err != nil {
			return nil, err
		}
		list = append(append(list, child), more...)
	}
	return list, nil
}

// Stop ends the server.
func (s *SSHD) Stop() {
	_ = s.cmd.Process.Kill() // it has no state to save
	_ = s.cmd.Wait()
}
