package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/cmd/internal/cli"
)

// TestServeLooksAfterItsDumps has a server remove what is too much, find one flipped bit and report what crashed, in the background.
func TestServeLooksAfterItsDumps(t *testing.T) {
	dir := t.TempDir()
	ca, data, config := filepath.Join(dir, "ca"), filepath.Join(dir, "data"), filepath.Join(dir, "serve.toml")
	corehaul(t, "ca", "init", "--ca", ca)
	if err := makeStore(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	corehaul(t, "pin", "a", "--data", data)
	vmcore, err := filepath.Glob(filepath.Join(data, "dumps", "web1", "*", "vmcore"))
	if err != nil || len(vmcore) != 1 {
		t.Fatal(vmcore, err)
	}
	b, err := os.ReadFile(vmcore[0])
	if err != nil {
		t.Fatal(err)
	}
	b[40000] ^= 1
	text := "tls = [\"127.0.0.1:0\"]\nscrub_rate = \"1GiB\"\nscrub_every = \"1d\"\nlog_format = \"json\"\n[retention]\nmax_total = \"300KiB\"\n"
	for name, content := range map[string][]byte{vmcore[0]: b, config: []byte(text)} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	log, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, cli.Stdio{Out: io.Discard, Err: in}, []string{"serve", "--data", data, "--ca", ca, "--config", config, "--reserve", "0"})
		_ = in.Close()
	}()
	removed, damaged, reported := false, false, false
	lines := bufio.NewScanner(log)
	for (!removed || !damaged || !reported) && lines.Scan() {
		line := lines.Text()
		reported = reported || strings.Contains(line, `"msg":"crash report","host":"db1"`) && strings.Contains(line, `"title":"kernel panic: db1"`)
		removed = removed || strings.Contains(line, "retention removed a dump") && strings.Contains(line, `"host":"web2"`)
		damaged = damaged || strings.Contains(line, `"level":"ERROR","msg":"scrub: a stored dump is damaged","host":"web1"`) && strings.Contains(line, `"pfn":`)
	}
	go func() { _, _ = io.Copy(io.Discard, log) }()
	stop()
	if err := <-ended; err != nil || !removed || !damaged || !reported {
		t.Errorf("removed %v, damaged %v, reported %v, stopped with %v", removed, damaged, reported, err)
	}
	if list := corehaul(t, "ls", "--data", data); strings.Contains(list, "web2") || !strings.Contains(list, "kernel panic: db1") {
		t.Errorf("left:\n%s", list)
	}
}
