package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/stores"
)

// notifySocket is what systemd has: a socket for the states of a service.
type notifySocket struct {
	t *testing.T
	*net.UnixConn
}

func newNotifySocket(t *testing.T) *notifySocket {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &notifySocket{t, conn}
}

// told returns the next states that are not those of the watchdog, and how often that was fed before.
func (n *notifySocket) told() (states string, fed int) {
	n.t.Helper()
	b := make([]byte, 4096)
	for {
		size, err := n.Read(b)
		if err != nil {
			n.t.Fatal(err)
		}
		if states := string(b[:size]); states != "WATCHDOG=1" {
			return states, fed
		}
		fed++
	}
}

// TestSystemdIsTold follows a server from its start to its end, with a reload that works and one that does not.
func TestSystemdIsTold(t *testing.T) {
	systemd := newNotifySocket(t)
	t.Setenv("WATCHDOG_USEC", "200000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	s := startLive(t, liveConfig)
	expect := func(want ...string) {
		t.Helper()
		states, _ := systemd.told()
		for _, w := range want {
			if !strings.Contains("\n"+states, "\n"+w) {
				t.Errorf("systemd is told %q, want %q", states, w)
			}
		}
	}
	expect("READY=1\n", "STATUS=receiving dumps on tls://"+s.addr)
	b := make([]byte, 100)
	for range 3 {
		if n, err := systemd.Read(b); err != nil || string(b[:n]) != "WATCHDOG=1" {
			t.Fatalf("got %q, %v, want food for the watchdog", b[:n], err)
		}
	}
	s.configure(liveConfig + "log_level = \"warn\"\nmemory = \"64MiB\"\n")
	s.reload()
	expect("RELOADING=1\n", "MONOTONIC_USEC=")
	expect("READY=1\n", "STATUS=receiving dumps; reloaded at ", "STATUS=receiving dumps; reloaded at "+time.Now().UTC().Format("2006"))
	s.configure("tls = 5\n")
	s.reload()
	expect("RELOADING=1\n")
	expect("READY=1\n", "STATUS=receiving dumps; the reload at ")
	s.stop()
	expect("STOPPING=1\n", "STATUS=stopping")
}

// deafListener is a listener whose loop is stuck.
type deafListener struct {
	net.Listener
	hangs chan struct{}
}

func (d *deafListener) Accept() (net.Conn, error) {
	<-d.hangs
	return nil, net.ErrClosed
}
func (d *deafListener) SetDeadline(time.Time) error { return nil }
func (d *deafListener) Close() error                { return nil }
func (d *deafListener) Addr() net.Addr              { return &net.UnixAddr{Name: "deaf"} }

// TestWatchdogOfAServerThatHangs has a loop that accepts nothing: the watchdog gets nothing, and the log says why.
func TestWatchdogOfAServerThatHangs(t *testing.T) {
	systemd := newNotifySocket(t)
	store, err := stores.Open(t.Context(), t.TempDir(), storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	var log bytes.Buffer
	s := &service{log: slog.New(slog.NewTextHandler(&log, nil))}
	if s.server, err = receiver.New(receiver.Config{Store: store}); err != nil {
		t.Fatal(err)
	}
	s.beat(t.Context(), time.Minute)
	b := make([]byte, 100)
	if n, err := systemd.Read(b); err != nil || string(b[:n]) != "WATCHDOG=1" {
		t.Fatalf("got %q, %v, want food for the watchdog", b[:n], err)
	}
	deaf := &deafListener{hangs: make(chan struct{})}
	began, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		close(began)
		ended <- s.server.Serve(t.Context(), deaf, func(context.Context, net.Conn) {})
	}()
	<-began
	// Until the loop runs, the server is alive. On a busy machine, the time may be over before the loop is asked.
	for !strings.Contains(log.String(), "no connections are accepted on deaf") {
		s.beat(t.Context(), 50*time.Millisecond)
	}
	if !strings.Contains(log.String(), "the watchdog of systemd was not fed") {
		t.Errorf("the log: %s", log.String())
	}
	close(deaf.hangs)
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the loop ended with %v", err)
	}
}

// passSocket starts a server to which a listener is passed as systemd passes sockets.
func passSocket(t *testing.T, name string, socket *os.File, args ...string) (stdout *bufio.Reader, stderr *bytes.Buffer, cmd *exec.Cmd) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec corehaul "$@"`, "sh", "serve"}, args...)...)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES="+name)
	cmd.ExtraFiles = []*os.File{socket}
	stderr = new(bytes.Buffer)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(out), stderr, cmd
}

// TestSocketActivation has the socket of a configured address passed: the server takes it, and finds what waits there.
func TestSocketActivation(t *testing.T) {
	dir := t.TempDir()
	ca, identity := filepath.Join(dir, "ca"), filepath.Join(dir, "web1.pem")
	corehaul(t, "ca", "init", "--ca", ca)
	corehaul(t, "ca", "issue", "web1", "--ca", ca, "--output", identity)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	addr := l.Addr().String()
	stdout, stderr, cmd := passSocket(t, "tls", f, "--data", filepath.Join(dir, "data"), "--ca", ca, "--tls", addr, "--reserve", "0")
	if line, err := stdout.ReadString('\n'); err != nil || line != "ready tls://"+addr+"\n" {
		t.Fatalf("got %q, %v\n%s", line, err, stderr)
	}
	sendLog(t, addr, identity)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, stderr)
	}
}

// TestSocketThatDoesNotFit has a socket passed that is not what the configuration says, in each way.
func TestSocketThatDoesNotFit(t *testing.T) {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca")
	corehaul(t, "ca", "init", "--ca", ca)
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tcp.Close() }()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "socket")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close() }()
	for name, tc := range map[string]struct {
		is     interface{ File() (*os.File, error) }
		called string
		want   []string
	}{
		"name":    {tcp, "corehaul.socket", []string{`socket "corehaul.socket" of systemd: no key of the configuration has this name`, "FileDescriptorName=tls"}},
		"no SSH":  {tcp, "ssh", []string{`ssh of the configuration is not set`, `hint: give the configuration the address too: ssh = ["` + tcp.Addr().String()}},
		"address": {tcp, "tls", []string{"it listens on " + tcp.Addr().String() + ", and tls of the configuration is 127.0.0.2:1"}},
		"UDP":     {udp, "tls", []string{"it does not listen for connections", "ListenStream="}},
		"unix":    {unix, "tls", []string{"is no TCP address"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := tc.is.File()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			_, stderr, cmd := passSocket(t, tc.called, f, "--data", filepath.Join(dir, "data"), "--ca", ca, "--tls", "127.0.0.2:1")
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != int(cli.ExitUsage) {
				t.Errorf("%v", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("want %q in:\n%s", want, stderr)
				}
			}
		})
	}
}

// recordHandler keeps the records that it gets, or fails.
type recordHandler struct {
	slog.Handler
	fails   error
	records *[]slog.Record
}

func (h *recordHandler) Handle(_ context.Context, r slog.Record) error {
	*h.records = append(*h.records, r)
	return h.fails
}

func (h *recordHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// TestJournalLines logs to a journal, and to one that takes nothing.
func TestJournalLines(t *testing.T) {
	var out bytes.Buffer
	var got []slog.Record
	text := slog.NewTextHandler(&out, nil)
	journal := &recordHandler{Handler: text, records: &got}
	log := slog.New(newJournalHandler(journal, text)).With("host", "web-17")
	log.Warn("refused a session", "code", "busy", "why", "two\nlines")
	if len(got) != 1 || got[0].Message != `level=WARN msg="refused a session" host=web-17 code=busy why="two\nlines"` || out.Len() > 0 {
		t.Errorf("the journal gets %+v, standard error %q", got, out.String())
	}
	journal.fails = os.ErrClosed
	log.Warn("once more", "code", "busy")
	if line := out.String(); !strings.Contains(line, `level=WARN msg="once more" host=web-17 code=busy`) {
		t.Errorf("without a journal: %q", line)
	}
	if a := journalField(nil, slog.String("close it with", "a\x1b[2Jb\n")); a.Key != "COREHAUL_CLOSE_IT_WITH" || a.Value.String() != `a\x1b[2Jb\x0a` {
		t.Errorf("field %v", a)
	}
}
