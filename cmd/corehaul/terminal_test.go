package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/cmd/internal/clitest"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/printable"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/stores"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// steering has characters of every kind that must not reach a terminal: C0, C1 as characters and as bytes, bidirectional marks,
// invisible ones, line separators.
const steering = "\x1b[2J\u009b2J\u0085\u202e\u2066\u061c\u200b\U000e0041\ufeff\u2028\u2029\xad\x9b2J\x90\xff"

// hostileStore has a dump whose texts, and whose log, try to steer terminals, and one whose damage does.
func hostileStore(t *testing.T, data string) {
	t.Helper()
	store, err := stores.Open(t.Context(), data, storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, host := range []string{"web1", "web2"} {
		meta := dumpdir.Meta{
			ID: strings.Repeat(fmt.Sprintf("%x", 10+i), 32), Host: host, Release: "6.1" + steering, Nodename: "victim" + steering,
			Machine: "x86_64" + steering, PanicLine: "Kernel panic - not syncing: " + steering, BuildID: "ab" + steering,
			CrashTime: time.Unix(1700000000, 0), Transport: "tls", Peer: "192.0.2.1" + steering, Sender: steering,
		}
		if err := makeDump(t.Context(), store, meta, 4); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	sums, err := filepath.Glob(filepath.Join(data, "dumps", "web2", "*", dumpdir.SumsName))
	if err != nil || len(sums) != 1 {
		t.Fatal(sums, err)
	}
	if err := os.WriteFile(sums[0], []byte(steering+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hostileFile is a dump file whose header, and whose log beside it, try to steer terminals; so does its name.
func hostileFile(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dir"+steering)
	name := filepath.Join(dir, "vmcore"+steering)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, dumpdir.LogName), []byte("log "+steering+"\nend \xe2\x80"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	h := &kdumpfile.Header{
		Utsname:  uts.Name{Sysname: "Linux", Nodename: "victim\u009b\u202e\x9b", Release: "6.1\u009b\u202e\x9b", Machine: "x\u009b\u202e"},
		PageSize: testPage, MaxPFN: testPages, NrCPUs: 1, DumpLevel: 31, Notes: testNotes(),
		RAM: []mem.Range{{Start: 0, End: testPages * testPage}},
	}
	w, err := kdumpfile.Create(f, h, slices.Values([]mem.Extent(nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.SealComplete(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestNothingSteersATerminal runs every command that shows texts of crashed machines and their dumps on a terminal.
func TestNothingSteersATerminal(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	hostileStore(t, data)
	file := hostileFile(t)
	for _, args := range [][]string{
		{"log", "--data", data, "aaaa"},
		{"log", file},
		{"ls", "--data", data},
		{"ls", "--data", data, "--json"},
		{"pin", "--data", data, "aaaa", "--reason", "because " + steering},
		{"show", "--data", data, "aaaa"},
		{"show", "--data", data, "--json", "aaaa"},
		{"show", file},
		{"show", "--json", file},
		{"verify", "--data", data, "bbbb"},
		{"verify", "--data", data, "--json", "bbbb"},
		{"verify", "--data", data, "--all"},
		{"verify", "--data", data, "--all", "--json"},
		{"verify", file},
		{"export", file, "-o", file},
		{"prune", "--data", data, "--dry-run", "--max-total", "1"},
		{"prune", "--data", data, "--dry-run", "--max-total", "1", "--json"},
		{"show", "--data", data, steering},
		{steering},
		{"--" + steering},
		{"__complete", "show", "--data", data, ""},
	} {
		s := clitest.Terminal(t, 80)
		code := cli.Report(s.TTY, "corehaul", run(t.Context(), cli.Stdio{Out: s.TTY, Err: s.TTY}, args))
		got := s.End()
		if got == "" && args[0] != "export" {
			t.Errorf("%q says nothing, exit code %d", args, code)
		}
		left := strings.ReplaceAll(got, "\x1b[1A\x1b[J", "") // with which a bar of progress goes
		for _, r := range left {
			if r == utf8.RuneError || !printable.Rune(r) && !strings.ContainsRune("\r\n\t", r) {
				t.Errorf("%q writes %U to the terminal:\n%q", args, r, got)
				break
			}
		}
	}
	s := clitest.Terminal(t, 80)
	if err := run(t.Context(), cli.Stdio{Out: s.TTY, Err: s.TTY}, []string{"log", file}); err != nil {
		t.Error(err)
	}
	if got := s.End(); !strings.Contains(got, `log \x1b[2J\xc2\x9b2J\xc2\x85\xe2\x80\xae`) || !strings.HasSuffix(got, `end \xe2\x80`) {
		t.Errorf("the log comes as %q", got)
	}
	var out bytes.Buffer
	if err := run(t.Context(), cli.Stdio{Out: &out, Err: io.Discard}, []string{"log", file}); err != nil || !strings.Contains(out.String(), "log "+steering+"\n") {
		t.Errorf("to a file, the log comes as %q, %v", out.String(), err)
	}
}

// TestLogLinesSteerNothing has a server log what a peer says, in both formats.
func TestLogLinesSteerNothing(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		c := serveConfig{serveFlags: serveFlags{logFormat: format}}
		log := c.logger(&app{stdio: cli.Stdio{Err: &out}}, slog.LevelInfo).With("host", steering)
		log.Warn("the sender warns", "text", steering, "error", errors.New(steering), "list", []string{steering})
		got := out.String()
		if !printable.String(strings.TrimSuffix(got, "\n")) || !strings.Contains(got, "the sender warns") {
			t.Errorf("%s: %q", format, got)
		}
	}
}
