package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver"
	corehaultls "github.com/corehaul/corehaul/tls"
	"github.com/corehaul/corehaul/uts"
)

// corehaul runs the program and returns what it prints.
func corehaul(t *testing.T, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	if err := run(t.Context(), cli.Stdio{Out: &out, Err: &errOut}, args); err != nil {
		t.Fatalf("corehaul %v: %v\n%s", args, err, errOut.String())
	}
	return out.String()
}

// TestServe starts a server on both loopback addresses, sends it a log over each, and stops it.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	ca, data, notify := filepath.Join(dir, "ca"), filepath.Join(dir, "data"), filepath.Join(dir, "notify")
	corehaul(t, "ca", "init", "--ca", ca)
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = systemd.Close() }()
	t.Setenv("NOTIFY_SOCKET", notify)
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, cli.Stdio{Out: in, Err: io.Discard}, []string{
			"serve", "--data", data, "--ca", ca, "--tls", "127.0.0.1:0", "--tls", "[::1]:0", "--reserve", "0",
		})
		_ = in.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(errors.Join(err, <-ended))
	}
	addrs := strings.Fields(line)
	if len(addrs) != 3 || addrs[0] != "ready" {
		t.Fatalf("got %q, want ready and two addresses", line)
	}
	state := make([]byte, 500)
	if n, err := systemd.Read(state); err != nil || !strings.HasPrefix(string(state[:n]), "READY=1\nSTATUS=receiving dumps on "+addrs[1]) {
		t.Errorf("systemd was told %q, %v", state[:n], err)
	}
	for i, host := range []string{"v4", "v6"} {
		identity := filepath.Join(dir, host)
		corehaul(t, "ca", "issue", host, "--ca", ca, "--output", identity)
		sendLog(t, strings.TrimPrefix(addrs[i+1], "tls://"), identity)
	}
	checkStatus(t, ca, data)
	stop()
	if err := <-ended; err != nil {
		t.Errorf("stopped with %v", err)
	}
	if _, err := os.Lstat(filepath.Join(data, socketName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	if list := corehaul(t, "ls", "--data", data, "--state", "log-only"); !strings.Contains(list, "v4") || !strings.Contains(list, "v6") {
		t.Errorf("both logs should be there:\n%s", list)
	}
	if log := corehaul(t, "log", protocol.DumpID(nil, []byte("v4"), nil), "--data", data); log != "kernel log\n" {
		t.Errorf("got log %q", log)
	}
}

// handed is a connection that was handed over.
type handed struct {
	*net.UnixConn
	in io.Reader
}

func (h *handed) Read(p []byte) (int, error) { return h.in.Read(p) }

// TestServeLocalOnly listens on no address and takes a connection over the socket.
func TestServeLocalOnly(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	socket := filepath.Join(data, socketName)
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, cli.Stdio{Out: in, Err: io.Discard}, []string{"serve", "--data", data, "--local-only", "--reserve", "0"})
		_ = in.Close()
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready unix://"+socket+"\n" {
		t.Fatalf("got %q, %v", line, errors.Join(err, <-ended))
	}
	conn, read, err := handOver(ctx, socket, "web-17", "192.0.2.1:7")
	if err != nil {
		t.Fatal(err)
	}
	sendLogOver(t, &handed{conn, read}, "web-17")
	receiveInterrupted(t, data)
	stop()
	if err := <-ended; err != nil {
		t.Errorf("stopped with %v", err)
	}
	if list := corehaul(t, "ls", "--data", data, "--state", "log-only"); !strings.Contains(list, "web-17") {
		t.Errorf("the log should be there:\n%s", list)
	}
}

// receiveInterrupted has a receive stopped in the midst of a session.
func receiveInterrupted(t *testing.T, data string) {
	t.Helper()
	ctx, stop := context.WithCancelCause(t.Context())
	in, sender := io.Pipe()
	out, answers := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, cli.Stdio{In: in, Out: answers, Err: io.Discard}, []string{"receive", "--stdio", "--host", "web-18", "--data", data})
		_ = answers.Close()
	}()
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if _, err := sender.Write([]byte{0}); err != nil { // it is taken once the connection is handed over
		t.Fatal(err)
	}
	why := errors.New("a signal")
	stop(why)
	if err := <-ended; err == nil || err.Error() != why.Error() {
		t.Errorf("interrupted with %q", err)
	}
}

// checkStatus asks the server what it has done so far, and tries to start a second one.
func checkStatus(t *testing.T, ca, data string) {
	t.Helper()
	info, err := os.Lstat(filepath.Join(data, socketName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket is %v, %v, want rights 0600", info, err)
	}
	var st receiver.Status
	if err := json.Unmarshal([]byte(corehaul(t, "status", "--json", "--data", data)), &st); err != nil {
		t.Fatal(err)
	}
	if st.Totals.Sessions != 2 || st.Totals.LogOnly != 2 || st.Limits.Active == 0 || st.Space.Total == 0 || st.Memory.Limit == 0 {
		t.Errorf("status %+v", st)
	}
	text := corehaul(t, "status", "--socket", filepath.Join(data, socketName))
	for _, want := range []string{"sending", " of 8", "2 sessions", "2 log only"} {
		if !strings.Contains(text, want) {
			t.Errorf("status lacks %q:\n%s", want, text)
		}
	}
	err = run(t.Context(), cli.Stdio{Out: io.Discard, Err: io.Discard}, []string{"serve", "--data", data, "--ca", ca, "--tls", "127.0.0.1:0"})
	if err == nil || !strings.Contains(err.Error(), "another server uses the data directory") {
		t.Errorf("a second server: %v", err)
	}
	// One with other data and the same socket.
	err = run(t.Context(), cli.Stdio{Out: io.Discard, Err: io.Discard}, []string{
		"serve", "--data", t.TempDir(), "--socket", filepath.Join(data, socketName), "--ca", ca, "--tls", "127.0.0.1:0",
	})
	if err == nil || !strings.Contains(err.Error(), "another server uses the control socket") {
		t.Errorf("a second server on the socket: %v", err)
	}
}

// TestStaleSocket has a server die without a word.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), socketName)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := listenControl(t.Context(), path)
	if err != nil {
		t.Fatalf("the socket of a dead server is in the way: %v", err)
	}
	defer func() { _ = l.Close() }()
	if other, err := listenControl(t.Context(), path); err == nil {
		_ = other.Close()
		t.Error("the socket of a living server was taken")
	}
}

// TestStatusTable prints a server that is busy.
func TestStatusTable(t *testing.T) {
	now := time.Unix(1700000000, 0)
	var out bytes.Buffer
	err := printSessions(&out, &receiver.Status{
		Now: now, Queue: []string{"web2/b"},
		Sessions: []receiver.SessionStatus{
			{Host: "web2", ID: "bbbb", State: "waiting for room", Since: now.Add(-time.Minute), Place: 1, Reason: "no room: \x1b[2J"},
			{Host: "web1", ID: "aaaaaaaaaaaaaaaa", State: "receiving", Since: now.Add(-time.Second), Pages: 50, Planned: 200, PageSize: 4096, PageRate: 256},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if !strings.Contains(lines[2], "web1") || !strings.Contains(lines[2], "25%   50/200") || !strings.Contains(lines[2], "1.0 MiB/s") {
		t.Errorf("first line %q", lines[2])
	}
	if !strings.Contains(lines[3], "waiting for room, place 1 of 1") || strings.Contains(lines[3], "\x1b") {
		t.Errorf("second line %q", lines[3])
	}
}

// FuzzServeFile holds the parser of the configuration to its word: an error, or rules that pass their check.
func FuzzServeFile(f *testing.F) {
	f.Add([]byte("memory = \"64MiB\"\n[[rule]]\nhost = \"web-*\"\nsame_crash = 3\nwithin = \"7d\"\nthen = \"log\"\n"))
	f.Add([]byte("[[rule]]\nfree_below = \"1G\"\nthen = \"wait\"\n[[ rule ]]\nno_room = true\nthen = \"refuse\"\n"))
	f.Add([]byte("[[rule]]\nhost = \"[\""))
	f.Add([]byte("[[rule]]\nsame_panic = 3\nsame_panic_from = \"fleet\"\nthen = \"log\"\n[retention]\nmax_per_panic = 2\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, found := parseServeFile("c.toml", text)
		if len(found) > 0 {
			return
		}
		for i := range file.rules {
			if err := file.rules[i].Check(); err != nil {
				t.Errorf("rule %d was taken: %v", i, err)
			}
		}
	})
}

// sendLog is a sender that has no more than a log.
func sendLog(t *testing.T, addr, identity string) {
	t.Helper()
	raw, host := dialServer(t, addr, identity)
	sendLogOver(t, raw, host)
}

// dialServer connects to a server as the host of an identity.
func dialServer(t *testing.T, addr, identity string) (conn net.Conn, host string) {
	t.Helper()
	id, err := corehaultls.LoadIdentity(identity)
	if err != nil {
		t.Fatal(err)
	}
	d := tls.Dialer{Config: corehaultls.ClientConfig(id)}
	raw, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return raw, id.Host
}

// sendLogOver sends the log of a host over a connection.
func sendLogOver(t *testing.T, raw io.ReadWriteCloser, host string) {
	t.Helper()
	sendText(t, raw, protocol.DumpID(nil, []byte(host), nil), "", "kernel log\n")
}

// sendText sends a log of a kernel release as the dump id over a connection, and waits for the seal.
func sendText(t *testing.T, raw io.ReadWriteCloser, id, release, text string) {
	t.Helper()
	beginText(t, raw, id, release)(text)
}

// beginText begins what sendText does.
func beginText(t *testing.T, raw io.ReadWriteCloser, id, release string) (finish func(text string)) {
	t.Helper()
	conn := protocol.NewConn(raw, protocol.Sender)
	hello := &protocol.Hello{DumpID: id, Tool: "test", Machine: "x86_64", PageSize: 4096, MaxPFN: 1, NrCPUs: 1, Uts: uts.Name{Release: release}}
	if err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	return func(text string) {
		t.Helper()
		defer func() { _ = conn.Close() }()
		finishText(t, conn, text)
	}
}

func finishText(t *testing.T, conn *protocol.Conn, text string) {
	t.Helper()
	log := conn.NewLogWriter()
	if _, err := io.WriteString(log, text); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.Close(""), conn.Write(&protocol.Finish{Reason: protocol.ReasonLogOnly})); err != nil {
		t.Fatal(err)
	}
	for {
		msg, err := conn.Read()
		if err != nil {
			t.Fatal(err)
		}
		if sealed, ok := msg.(*protocol.Sealed); ok {
			if sealed.State != protocol.StateLogOnly {
				t.Errorf("sealed as %s", sealed.State)
			}
			return
		}
	}
}

func TestConfigFileYieldsToFlags(t *testing.T) {
	file, found := parseServeFile("c.toml", []byte("memory = \"64MiB\"\nmax_active = 3\ntls = [\"a:1\", \"b:2\"]\nresume_grace = \"90s\"\nwatch = [\"/a,b\", \"/c d\"]\n"))
	cmd := newServe(&app{})
	if err := errors.Join(found.err(), cmd.Flags().Set("max-active", "5")); err != nil {
		t.Fatal(err)
	}
	over, found := file.apply(cmd.Flags())
	if err := found.err(); err != nil || !slices.Equal(over, []string{"max-active"}) {
		t.Fatal(over, err)
	}
	for name, want := range map[string]string{
		"memory": "64MiB", "max-active": "5", "tls": "[a:1,b:2]", "resume-grace": "1m30s", "reserve": "1GiB", "watch": `["/a,b",/c d]`,
	} {
		if got := cmd.Flag(name).Value.String(); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// TestEveryServeFlagIsAKey holds the configuration file to the flags.
func TestEveryServeFlagIsAKey(t *testing.T) {
	cmd := newServe(&app{})
	for _, line := range strings.Split(cmd.Flags().FlagUsages(), "\n") {
		_, rest, ok := strings.Cut(line, "--")
		if !ok {
			continue
		}
		name := strings.Fields(rest)[0]
		if name == "config" || name == "check" || name == "json" { // what to do, and with which file
			continue
		}
		key := strings.ReplaceAll(name, "-", "_")
		_, found := parseServeFile("c.toml", []byte(key+" = []\n"))
		if len(found) > 0 && strings.Contains(found.Error(), "unknown key") {
			t.Errorf("flag --%s has no key %s", name, key)
		}
	}
}
