package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/outputtest"
	"github.com/corehaul/corehaul/protocol"
)

// TestServeTellsNews: a server logs a line for the first dump of a crash, none for the second, and one for the first dump of a kernel in which
// the crash was resolved. That stays when the dump is removed.
func TestServeTellsNews(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, data, identity := filepath.Join(dir, "ca"), filepath.Join(dir, "data"), filepath.Join(dir, "web-17")
	corehaul(t, "ca", "init", "--ca", ca)
	corehaul(t, "ca", "issue", "web-17", "--ca", ca, "--output", identity)
	ctx, stop := context.WithCancel(t.Context())
	said := new(outputtest.Buffer)
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, cli.Stdio{Out: in, Err: said}, []string{"serve", "--data", data, "--ca", ca, "--tls", "127.0.0.1:0", "--reserve", "0"})
		_ = in.Close()
	}()
	ready, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(errors.Join(err, <-ended))
	}
	addr := strings.TrimPrefix(strings.Fields(ready)[1], "tls://")
	send := func(boot, release, log string) (id string) {
		t.Helper()
		conn, _ := dialServer(t, addr, identity)
		id = protocol.DumpID(nil, []byte(boot), nil)
		sendText(t, conn, id, release, crashLog(t, log))
		return id
	}
	wait := func(parts ...string) string {
		t.Helper()
		eventually(t, "a line with "+strings.Join(parts, ", "), func() bool { return len(said.Lines(parts...)) > 0 })
		return said.Lines(parts...)[0]
	}
	const newCrash, regression = "a crash that was not seen before", "regression: "

	first := send("1", "6.1.0-9-amd64", "real-6.1-null-read")
	group := regexp.MustCompile(`group=([0-9a-f]{16}) `).FindStringSubmatch(wait(newCrash, "dump="+first, "host=web-17", "in null_read"))
	if group == nil {
		t.Fatalf("no group in\n%s", said)
	}
	send("2", "6.1.0-9-amd64", "real-6.1-null-read")
	wait(newCrash, "dump="+send("3", "6.1.0-9-amd64", "real-6.1-bug"))
	corehaul(t, "group", "resolve", group[1], "6.1.0-10-amd64", "--data", data)
	send("4", "6.1.0-9-amd64", "real-6.1-null-read")
	again := send("5", "6.1.0-11-amd64", "real-6.1-null-read")
	wait(regression, "dump="+again, "group="+group[1], "kernel=6.1.0-11-amd64", "resolved_in=6.1.0-10-amd64")
	send("6", "6.1.0-11-amd64", "real-6.1-null-read")
	wait(newCrash, "dump="+send("7", "6.1.0-11-amd64", "real-6.1-gp-fault"))
	if n, r := len(said.Lines(newCrash)), len(said.Lines(regression)); n != 3 || r != 1 {
		t.Errorf("%d lines of new crashes and %d of regressions, want 3 and 1:\n%s", n, r, said)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("stopped with %v", err)
	}
	corehaul(t, "rm", again, protocol.DumpID(nil, []byte("6"), nil), "--data", data)
	if show := corehaul(t, "group", "show", group[1], "--data", data); !strings.Contains(show, "regressed") || !strings.Contains(show, again+" of 6.1.0-11-amd64") || !strings.Contains(show, "removed since") {
		t.Errorf("without the dump:\n%s", show)
	}
}

// crashLog returns a log of the tests of kernel/oops.
func crashLog(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "kernel", "oops", "testdata", name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	_, log, _ := strings.Cut(string(text), "\n\n")
	return log
}
