package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/cmd/internal/clitest"
	"github.com/corehaul/corehaul/internal/outputtest"
	"github.com/corehaul/corehaul/receiver"
	"github.com/corehaul/corehaul/receiver/watch"
	"github.com/corehaul/corehaul/storage/reports"
)

// busyStatus is that of a server with a session of each kind.
func busyStatus() *serverStatus {
	now := time.Unix(1700000000, 0).UTC()
	id := func(digit string) string { return strings.Repeat(digit, 32) }
	return &serverStatus{
		Status: receiver.Status{
			Tool: "corehaul v1.2.3", Started: now.Add(-100 * time.Hour), Now: now, Queue: []string{"web-300/" + id("c")},
			Sessions: []receiver.SessionStatus{
				{Host: "web-17", ID: id("a"), Peer: "192.0.2.17:40404", Transport: "tls", State: "receiving", Since: now.Add(-200 * time.Second), Pages: 5_000_000, Planned: 20_000_000, PageSize: 4096, PageRate: 25600, LeftMsec: 585_937, Needs: 1 << 34},
				{Host: "database-server-in-rack-7", ID: id("b"), Peer: "[2001:db8::42]:40404", Transport: "ssh", State: "planning", Since: now.Add(-3 * time.Second)},
				{Host: "web-300", ID: id("c"), Peer: "192.0.2.30:40404", Transport: "tls", State: "waiting for room", Since: now.Add(-time.Hour), Place: 1, Reason: "no room: needs 60.0 GiB, and 12.5 GiB are free beyond the reserve"},
			},
			Gone: []receiver.GoneStatus{
				{Host: "web-4", ID: id("d"), Since: now.Add(-150 * time.Second), Until: now.Add(450 * time.Second), Pages: 1200, Planned: 4800},
				{Host: "database-server-in-rack-9", ID: id("e"), Since: now.Add(-10 * time.Minute), Until: now.Add(-time.Second)},
			},
			Space:  receiver.SpaceStatus{Total: 4 << 40, Free: 1 << 40, Reserve: 1 << 30, Reserved: 60 << 30},
			Memory: receiver.MemoryStatus{Limit: 512 << 20, Hello: 128 << 20, HelloUsed: 1 << 20, Window: 16 << 20},
			Limits: receiver.LimitStatus{Active: 8, ActiveUsed: 2, HostSessions: 2, HostDumps: 10000, Connections: 1024, Connected: 3, Rules: 2},
			Totals: receiver.Totals{Sessions: 1234, Complete: 1200, Partial: 20, LogOnly: 10, BrokenOff: 4, Bytes: 9 << 40, Refused: map[string]uint64{"busy": 3, "no-space": 1}},
		},
		Reports: &reports.Status{Waiting: 1, Failed: 2},
		Watch:   []watch.Status{{Path: "/srv/crash", Taken: 7, Arriving: 1}, {Path: "/srv/depot", Error: "open /srv/depot: permission denied"}},
	}
}

func TestStatusScreens(t *testing.T) {
	clitest.CompareScreens(t, "status", func(tty *os.File) error { return printStatus(tty, busyStatus()) })
	clitest.CompareScreens(t, "status-idle", func(tty *os.File) error {
		return printStatus(tty, &serverStatus{Status: receiver.Status{Tool: "corehaul v1.2.3"}})
	})
}

// statusServer answers what a server does on a socket, until the test or the returned function ends it.
func statusServer(t *testing.T, st *serverStatus) (path string, end func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), socketName)
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(st) })}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	end = func() { _ = srv.Close(); <-done }
	t.Cleanup(end)
	return path, end
}

// watching runs "status --watch" until the returned function ends it, which returns its exit code.
func watching(t *testing.T, stdio cli.Stdio, args ...string) (end func() cli.ExitCode) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan cli.ExitCode, 1)
	go func() {
		code <- cli.Report(stdio.Err, "corehaul", run(ctx, stdio, append([]string{"status", "--watch", "--interval", "100ms"}, args...)))
	}()
	return func() cli.ExitCode { cancel(); return <-code }
}

// TestStatusWatch watches a server on a terminal. When the server goes, the watch goes on. The end is no error, and leaves the terminal as it was.
func TestStatusWatch(t *testing.T) {
	path, end := statusServer(t, busyStatus())
	s := clitest.Terminal(t, 50)
	stop := watching(t, cli.Stdio{Out: s.TTY, Err: s.TTY}, "--socket", path)
	eventually(t, "a second screen in the place of the first", func() bool { return strings.Contains(s.Seen(), "A\x1b[J") })
	first, _, _ := strings.Cut(s.Seen(), "\x1b[")
	lines := strings.Split(first, "\n")
	if len(lines) != 24 || !strings.HasPrefix(lines[0], "HOST ") || !strings.HasPrefix(lines[22], "… and ") {
		t.Errorf("a screen of 24 lines gets %d: %q", len(lines), lines)
	}
	end()
	eventually(t, "the word that the server is gone", func() bool { return strings.Contains(s.Seen(), "no server is running") })
	if code := stop(); code != cli.ExitOK {
		t.Errorf("exit code %d", code)
	}
	if text := s.End(); strings.Contains(text, "\x1b[?") || strings.Contains(text, "hint") {
		t.Errorf("wrote %q", text)
	}
}

// TestStatusWatchInPipe prints one block or line for each interval.
func TestStatusWatchInPipe(t *testing.T) {
	path, _ := statusServer(t, busyStatus())
	for _, tc := range []struct{ flag, block string }{{"--json=false", "\n\nserver "}, {"--json", "}\n{\"tool\""}} {
		var out, errOut outputtest.Buffer
		stop := watching(t, cli.Stdio{Out: &out, Err: &errOut}, "--socket", path, tc.flag)
		eventually(t, "three blocks", func() bool { return strings.Count(out.String(), tc.block) > 1 })
		if code := stop(); code != cli.ExitOK || errOut.String() != "" || strings.Contains(out.String(), "\x1b") || strings.Contains(out.String(), "…") {
			t.Errorf("%s: exit code %d, %q, %q", tc.flag, code, out.String(), errOut.String())
		}
	}
}

func TestStatusWatchUsage(t *testing.T) {
	for _, tc := range []struct{ args, says string }{
		{"status --interval 5s", "--watch, which is missing"},
		{"status --watch --interval 1ms", "--interval 1ms is less than 100ms"},
		{"status --watch --interval soon", "--interval"},
	} {
		var errOut outputtest.Buffer
		code := cli.Report(&errOut, "corehaul", run(t.Context(), cli.Stdio{Out: &errOut, Err: &errOut}, strings.Fields(tc.args)))
		if code != cli.ExitUsage || !strings.Contains(errOut.String(), tc.says) {
			t.Errorf("%s: exit code %d, %q", tc.args, code, errOut.String())
		}
	}
}
