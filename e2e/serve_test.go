package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/e2e/lab"
)

// judgesStore is a receiver, its directories, and what a sender needs to reach it. Its
// process may be stopped, killed and started again; it ends with the test.
type judgesStore struct {
	data, ca, identity string
	target             string // once it was started
	ssh                string // the second one, of a receiver with --authorized-keys
	log                string // path of its log, of all its processes
	flags              []string
	cmd                *exec.Cmd // nil while it does not run
}

// judgesServe starts a receiver of its own, with fresh keys, which ends with the test.
func judgesServe(tb testing.TB, flags ...string) *judgesStore {
	tb.Helper()
	s := judgesNew(tb, flags...)
	s.start(tb)
	return s
}

// judgesNew makes the keys of a receiver and does not start it. A flag --tls is for an
// address that is not the usual one.
func judgesNew(tb testing.TB, flags ...string) *judgesStore {
	tb.Helper()
	dir := tb.TempDir()
	s := &judgesStore{data: filepath.Join(dir, "data"), ca: filepath.Join(dir, "ca")}
	judgesRun(tb, 0, "corehaul", "ca", "init", "--ca", s.ca)
	s.identity = s.issue(tb, "web-17")
	s.flags = append([]string{"--reserve", "0"}, flags...)
	if slices.Contains(flags, "--authorized-keys") {
		s.hostKey(tb)
	}
	return s
}

// hostKey saves a receiver the making of its RSA key, which takes more than a second.
func (s *judgesStore) hostKey(tb testing.TB) {
	tb.Helper()
	err := os.Mkdir(s.data, 0o700)
	if err == nil {
		err = lab.WriteSSHKey(tb.Context(), "rsa", filepath.Join(s.data, "ssh_host_rsa_key"), "corehaul")
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// issue makes the identity of a host and returns its path.
func (s *judgesStore) issue(tb testing.TB, host string) string {
	tb.Helper()
	path := filepath.Join(filepath.Dir(s.ca), host+".pem")
	judgesRun(tb, 0, "corehaul", "ca", "issue", host, "--ca", s.ca, "--output", path)
	return path
}

// start starts the receiver, where it listened the last time if it did.
func (s *judgesStore) start(tb testing.TB) {
	tb.Helper()
	if s.log == "" {
		s.log = filepath.Join(filepath.Dir(s.ca), "log")
		tb.Cleanup(func() { s.end(tb) })
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	args := append([]string{"serve", "--data", s.data, "--ca", s.ca}, s.flags...)
	switch {
	case s.target != "":
		args = append(args, "--tls", s.address(tb))
	case !strings.Contains(strings.Join(s.flags, " "), "--tls"):
		args = append(args, "--tls", "127.0.0.1:0")
	}
	if said := strings.Join(s.flags, " "); strings.Contains(said, "--authorized-keys") && !strings.Contains(said, "--ssh") {
		args = append(args, "--ssh", cmp.Or(strings.TrimPrefix(s.ssh, "ssh://"), "127.0.0.1:0"))
	}
	// The context of the test ends before its cleanups, which are to stop it gently.
	s.cmd = exec.CommandContext(context.WithoutCancel(tb.Context()), judgesBin+"corehaul", args...)
	s.cmd.Stderr = log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		tb.Fatalf("the receiver is not ready: %v\n%s", err, s.said(tb))
	}
	said := append(strings.Fields(line), "")
	if said[0] != "ready" || !strings.HasPrefix(said[1], "tls://") || strings.Contains(said[2], "tls://") {
		tb.Fatalf("got %q, want ready and an address", line)
	}
	s.target, s.ssh = said[1], said[2]
}

// address is HOST:PORT that the receiver listens on.
func (s *judgesStore) address(tb testing.TB) string {
	tb.Helper()
	u, err := url.Parse(s.target)
	if err != nil {
		tb.Fatal(err)
	}
	return u.Host
}

// said is the receiver's log.
func (s *judgesStore) said(tb testing.TB) string {
	tb.Helper()
	b, err := os.ReadFile(s.log)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// idle waits until the receiver has ended every session that began, and stored what came in it.
func (s *judgesStore) idle(tb testing.TB) {
	tb.Helper()
	serveWait(tb, "the end of all sessions", func() bool {
		said := s.said(tb)
		ended := strings.Count(said, "session ended") + strings.Count(said, "session broke off")
		return ended > 0 && ended == strings.Count(said, `msg="session began"`)
	})
}

// serveWait asks until the answer is yes. It is patient: machines are slow.
func serveWait(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for range 600 {
		if ok() {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	tb.Fatalf("waited too long for %s", what)
}

// kill ends the receiver as a power cut would, apart from what the kernel still writes.
func (s *judgesStore) kill(tb testing.TB) {
	tb.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		tb.Fatal(err)
	}
	_ = s.cmd.Wait() // it was killed
	s.cmd = nil
}

// end stops the receiver, if it runs, in good order.
func (s *judgesStore) end(tb testing.TB) {
	tb.Helper()
	if s.cmd != nil {
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			tb.Errorf("stop the receiver: %v", err)
		}
		if err := s.cmd.Wait(); err != nil {
			tb.Errorf("the receiver ended with %v", err)
		}
		s.cmd = nil
	}
	if tb.Failed() {
		tb.Logf("the receiver's log:\n%s", s.said(tb))
	}
}

// serveDump is what `ls --json` says of a dump.
type serveDump struct {
	Host, ID, Path string
	Manifest       struct {
		State     string
		Reason    string
		Release   string
		Transport string
		PanicLine string    `json:"panic_line"`
		CrashTime time.Time `json:"crash_time"`
		StartTime time.Time `json:"start_time"`
		EndTime   time.Time `json:"end_time"`
		Pages     struct{ Planned, Present, Missing uint64 }
	}
}

// list returns all dumps.
func (s *judgesStore) list(tb testing.TB) []serveDump {
	tb.Helper()
	var list struct{ Dumps []serveDump }
	out, _ := judgesRun(tb, 0, "corehaul", "ls", "--data", s.data, "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		tb.Fatal(err)
	}
	return list.Dumps
}

// one returns the only dump.
func (s *judgesStore) one(tb testing.TB) serveDump {
	tb.Helper()
	list := s.list(tb)
	if len(list) != 1 {
		tb.Fatalf("the receiver has %d dumps, want 1", len(list))
	}
	return list[0]
}

// serveSender is a sender process.
type serveSender struct {
	cmd    *exec.Cmd
	closed chan struct{} // when it has closed its standard error

	mu     sync.Mutex
	lines  []string
	onLine func(string)
}

// serveSend starts a sender. onLine, which may be nil, gets every line of its standard
// error at once. The sender ends with the test.
func serveSend(tb testing.TB, onLine func(string), args ...string) *serveSender {
	tb.Helper()
	return serveSendBy(tb, onLine, append([]string{judgesBin + "corehaul-send", "send"}, args...)...)
}

// serveSendBy starts a sender by a whole command line.
func serveSendBy(tb testing.TB, onLine func(string), command ...string) *serveSender {
	tb.Helper()
	p := &serveSender{closed: make(chan struct{}), onLine: onLine}
	p.cmd = exec.CommandContext(tb.Context(), command[0], command[1:]...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(p.closed)
		for scan := bufio.NewScanner(stderr); scan.Scan(); {
			p.note(scan.Text())
		}
	}()
	tb.Cleanup(func() { p.kill(tb) })
	return p
}

func (p *serveSender) note(line string) {
	p.mu.Lock()
	p.lines = append(p.lines, line)
	p.mu.Unlock()
	if p.onLine != nil {
		p.onLine(line)
	}
}

// said is what it wrote to standard error so far.
func (p *serveSender) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// kill ends the sender at once, if it has not ended, and returns what it had written then.
func (p *serveSender) kill(tb testing.TB) (written uint64) {
	tb.Helper()
	if p.cmd.ProcessState != nil {
		return 0
	}
	_ = p.cmd.Process.Kill() // it may have ended by itself
	_, written = p.wait(tb)
	return written
}

// wait waits until the sender has ended and returns its exit code (-1 for a signal), and the bytes
// that it gave to write(2): those of its connections and a few lines of text.
func (p *serveSender) wait(tb testing.TB) (code int, written uint64) {
	tb.Helper()
	<-p.closed
	pid := p.cmd.Process.Pid
	// A process that has ended keeps its counters until it is reaped.
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			tb.Fatal(err)
		}
	}
	written = serveProc(tb, pid, "io", "wchar:")
	_ = p.cmd.Wait() // the code says it
	return p.cmd.ProcessState.ExitCode(), written
}

// serveProc reads a number out of a file of /proc/PID: the word behind key.
func serveProc(tb testing.TB, pid int, file, key string) uint64 {
	tb.Helper()
	path := filepath.Join("/proc", strconv.Itoa(pid), file)
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	words := strings.Fields(string(b))
	for i, w := range words[:len(words)-1] {
		if w != key {
			continue
		}
		n, err := strconv.ParseUint(words[i+1], 10, 64)
		if err != nil {
			tb.Fatalf("%s: %v", path, err)
		}
		return n
	}
	tb.Fatalf("%s has no %s", path, key)
	return 0
}
