package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/uts"
)

// liveServer is a server in this process with a configuration file.
type liveServer struct {
	t    *testing.T
	dir  string
	addr string      // of its first listener
	log  chan string // its lines
	stop func()
}

// startLive starts a server with the configuration text; CA and DATA in it stand for directories.
func startLive(t *testing.T, text string, args ...string) *liveServer {
	t.Helper()
	s := &liveServer{t: t, dir: t.TempDir(), log: make(chan string, 1000)}
	corehaul(t, "ca", "init", "--ca", s.path("ca"))
	s.configure(text)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	out, stdout := io.Pipe()
	log, stderr := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, cli.Stdio{Out: stdout, Err: stderr}, append([]string{"serve", "--config", s.path("serve.toml")}, args...))
		_ = stdout.Close()
		_ = stderr.Close()
	}()
	go func() {
		defer close(s.log)
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			s.log <- lines.Text()
		}
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err, <-ended)
	}
	_, s.addr, _ = strings.Cut(strings.Fields(line)[1], "://")
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	return s
}

func (s *liveServer) path(name string) string { return filepath.Join(s.dir, name) }

func (s *liveServer) configure(text string) {
	s.t.Helper()
	text = strings.NewReplacer("CA", s.path("ca"), "DATA", s.path("data"), "KEYS", s.path("keys")).Replace(text)
	if err := os.WriteFile(s.path("serve.toml"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// says waits until the log has a line with a text.
func (s *liveServer) says(text string) string {
	s.t.Helper()
	for line := range s.log {
		if strings.Contains(line, text) {
			return line
		}
	}
	s.t.Fatalf("the log never says %q", text)
	return ""
}

// reload asks for a reload and returns the answer.
func (s *liveServer) reload() (result reloadResult, code cli.ExitCode) {
	s.t.Helper()
	var out, errOut bytes.Buffer
	err := run(s.t.Context(), cli.Stdio{Out: &out, Err: &errOut}, []string{"reload", "--data", s.path("data"), "--json"})
	if bad := json.Unmarshal(out.Bytes(), &result); bad != nil {
		s.t.Fatal(bad, err, out.String(), errOut.String())
	}
	return result, cli.CodeOf(err)
}

const liveConfig = `
data = "DATA"
tls = ["127.0.0.1:0"]
ca = "CA"
reserve = "0"
`

func changesText(list []change) string {
	var lines []string
	for i := range list {
		lines = append(lines, list[i].String())
	}
	return strings.Join(lines, "\n")
}

// TestReload changes each kind of key under a running server.
func TestReload(t *testing.T) {
	s := startLive(t, liveConfig+"memory = \"64MiB\"\n", "--max-active", "3")
	defer s.stop()
	if got, code := s.reload(); code != 0 || len(got.Changed)+len(got.Restart)+len(got.Problems) > 0 || got.Type != "reload" || got.Config != s.path("serve.toml") {
		t.Errorf("of the same file: %+v, %d", got, code)
	}
	s.configure(liveConfig + "memory = \"96MiB\"\nlog_level = \"debug\"\nmax_active = 7\n[retention]\nmax_age = \"30d\"\n[[rule]]\nhost = \"web-*\"\nthen = \"log\"\n")
	got, code := s.reload()
	want := "log_level: INFO -> DEBUG\nretention.max_age: none -> 30d\nrule 1: none -> host = \"web-*\", then = \"log\""
	if text := changesText(got.Changed); code != 0 || text != want {
		t.Errorf("changed, %d:\n%s\nwant:\n%s", code, text, want)
	}
	if text := changesText(got.Restart); text != "memory: 64MiB -> 96MiB" {
		t.Errorf("needs a restart: %s", text)
	}
	if text := strings.Join(got.Warnings, "\n"); text != "--max-active, or its environment variable, rules over max_active of the file" {
		t.Errorf("warnings: %s", text)
	}
	s.says(`msg="configuration changed" by="corehaul reload" path=` + s.path("serve.toml") + ` key=log_level old=INFO new=DEBUG`)
	// The new rule counts, and what needs a restart is said again.
	if got, _ := s.reload(); len(got.Changed) != 0 || changesText(got.Restart) != "memory: 64MiB -> 96MiB" {
		t.Errorf("once more: %+v", got)
	}
	identity := s.path("web-1.pem")
	corehaul(t, "ca", "issue", "web-1", "--ca", s.path("ca"), "--output", identity)
	conn, host := dialServer(t, s.addr, identity)
	if rule := welcomed(t, conn, host); !strings.Contains(rule, "host web-1 (rule 1)") {
		t.Errorf("the sender is told %q, not of the new rule", rule)
	}
}

// welcomed says hello with a log, and returns why the receiver wants no pages.
func welcomed(t *testing.T, raw net.Conn, host string) string {
	t.Helper()
	conn := protocol.NewConn(raw, protocol.Sender)
	defer func() { _ = conn.Close() }()
	hello := &protocol.Hello{DumpID: protocol.DumpID(nil, []byte(host), nil), Tool: "test", Machine: "x86_64", PageSize: 4096, MaxPFN: 1, NrCPUs: 1, Uts: uts.Name{Release: "6.1"}}
	log := conn.NewLogWriter()
	if err := errors.Join(conn.Write(hello), log.Close("")); err != nil {
		t.Fatal(err)
	}
	for {
		msg, err := conn.Read()
		if err != nil {
			t.Fatal(err)
		}
		if w, ok := msg.(*protocol.Welcome); ok {
			return w.Reason
		}
	}
}

// TestReloadOfAWrongFileChangesNothing has one key changed well, and others wrongly: none of them counts, and all that is wrong is said.
func TestReloadOfAWrongFileChangesNothing(t *testing.T) {
	s := startLive(t, liveConfig)
	defer s.stop()
	s.configure(liveConfig + "log_level = \"debug\"\nmax_activ = 3\nmemory = \"lots\"\n[[rule]]\nthen = \"dance\"\n")
	got, code := s.reload()
	if code != cli.ExitUsage || len(got.Changed)+len(got.Restart) > 0 {
		t.Errorf("%d, %+v", code, got)
	}
	var found []string
	for _, p := range got.Problems {
		found = append(found, fmt.Sprintf("%d %s", p.Line, p.Key))
		if p.File != s.path("serve.toml") || !strings.Contains(p.Error, fmt.Sprintf("line %d", p.Line)) {
			t.Errorf("%+v", p)
		}
	}
	if text := strings.Join(found, ", "); text != "7 max_activ, 8 memory, 9 rule 1" {
		t.Errorf("problems: %s", text)
	}
	s.says(`level=ERROR msg="not reloaded, the configuration before still counts: configuration ` + s.path("serve.toml") + `, line 7: unknown key`)
	s.configure(liveConfig)
	if got, code := s.reload(); code != 0 || len(got.Changed)+len(got.Restart) > 0 {
		t.Errorf("back to the first file, there are changes: %+v, %d", got, code)
	}
}

// TestReloadOfCA has a session under way while the directory of the CA gets another CA: the session ends well, new ones need new identities.
func TestReloadOfCA(t *testing.T) {
	s := startLive(t, liveConfig)
	defer s.stop()
	identity := func(name, ca string) string {
		path := s.path(name)
		corehaul(t, "ca", "issue", "web1", "--ca", s.path(ca), "--output", path)
		return path
	}
	before := identity("before.pem", "ca")
	underWay, _ := dialServer(t, s.addr, before)
	finish := beginText(t, underWay, protocol.DumpID(nil, []byte("under way"), nil), "6.1")
	s.says("session began")
	corehaul(t, "ca", "init", "--ca", s.path("ca2"))
	after := identity("after.pem", "ca2")
	if err := errors.Join(os.RemoveAll(s.path("ca")), os.Rename(s.path("ca2"), s.path("ca"))); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		got, code := s.reload()
		if code != 0 {
			t.Fatalf("%+v", got)
		}
	}
	s.says("key of the receiver")
	s.says("senders that know the old one refuse to connect")
	finish("kernel log\n")
	raw, host := dialServer(t, s.addr, after)
	sendLogOver(t, raw, host)
	if err := os.Remove(s.path("ca/receiver.key")); err != nil {
		t.Fatal(err)
	}
	if got, code := s.reload(); code != cli.ExitUsage || len(got.Problems) != 1 || !strings.HasSuffix(got.Problems[0].Error, "receiver.key: there is no such file") {
		t.Errorf("without the key: %+v, %d", got, code)
	}
	raw, host = dialServer(t, s.addr, after)
	sendLogOver(t, raw, host)
}

// TestHangup sends SIGHUP to a server, also while it reads its configuration: the last file counts in any case, and the server goes on.
func TestHangup(t *testing.T) {
	s := startLive(t, liveConfig)
	defer s.stop()
	for i := range 20 {
		s.configure(liveConfig + fmt.Sprintf("[[rule]]\nhost = \"web-%d\"\nthen = \"log\"\n", i))
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	s.says(`host = \"web-19\"`)
	identity := s.path("web1.pem")
	corehaul(t, "ca", "issue", "web1", "--ca", s.path("ca"), "--output", identity)
	sendLog(t, s.addr, identity)
}
