package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/cmd/internal/cli"
)

// TestHangupDoesNotEndServe sends SIGHUP to a server, which says that it does not read its configuration again, and goes on.
func TestHangupDoesNotEndServe(t *testing.T) {
	dir := t.TempDir()
	ca, data := filepath.Join(dir, "ca"), filepath.Join(dir, "data")
	corehaul(t, "ca", "init", "--ca", ca)
	ctx, stop := context.WithCancel(t.Context())
	out, stdout := io.Pipe()
	log, stderr := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, cli.Stdio{Out: stdout, Err: stderr}, []string{"serve", "--data", data, "--ca", ca, "--tls", "127.0.0.1:0", "--reserve", "0"})
		_ = stdout.Close()
		_ = stderr.Close()
	}()
	heard := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "SIGHUP: the configuration is not read again") {
				heard <- true
			}
		}
		close(heard)
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err, <-ended)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !<-heard {
		t.Error("nothing was said")
	}
	identity := filepath.Join(dir, "web1")
	corehaul(t, "ca", "issue", "web1", "--ca", ca, "--output", identity)
	sendLog(t, strings.TrimPrefix(strings.Fields(line)[1], "tls://"), identity)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestUnitStartsServeAgain reads the unit: whatever ended the server, it comes back, and systemd does not give up.
func TestUnitStartsServeAgain(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "contrib", "corehaul.service"))
	if err != nil {
		t.Fatal(err)
	}
	unit, service, _ := bytes.Cut(text, []byte("[Service]"))
	for want, in := range map[string][]byte{"\nRestart=always\n": service, "\nStartLimitIntervalSec=0\n": unit} {
		if !bytes.Contains(in, []byte(want)) {
			t.Errorf("the unit lacks %q where systemd looks for it", want)
		}
	}
}
