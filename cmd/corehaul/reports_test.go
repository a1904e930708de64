package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/stores"
)

// Files beside a copy of the test program: while there is holdName, the children that read dumps wait for ever, and their pids are in
// names that begin with heldName.
const (
	holdName = "hold"
	heldName = "held-"
)

// hold waits for ever in a child that reads a dump, if the test wants that.
func hold() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	dir, _ := os.Getwd()
	if _, err := os.Stat(filepath.Join(filepath.Dir(exe), holdName)); err != nil || dir == "/" { // the child that only shows that it can start
		return
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(exe), heldName+strconv.Itoa(os.Getpid())), nil, 0o600); err != nil {
		panic(err)
	}
	for {
		time.Sleep(time.Hour) // until it is killed
	}
}

// eventually waits until something is so, with a limit that only a hang reaches.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// running reports whether a process runs. One that has ended may wait for its parent to ask.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := bytes.Cut(stat, []byte(") "))
	return err == nil && !bytes.HasPrefix(after, []byte("Z")) && !bytes.HasPrefix(after, []byte("X"))
}

// TestServeEndsInTheMiddleOfReports kills a server, or ends it in good order, while its children read a dump. They end with it, and nothing is
// left behind. The next server makes the reports.
func TestServeEndsInTheMiddleOfReports(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			ca, data, program := filepath.Join(dir, "ca"), filepath.Join(dir, "data"), filepath.Join(dir, "corehaul")
			corehaul(t, "ca", "init", "--ca", ca)
			self, err := os.ReadFile("/proc/self/exe")
			if err := errors.Join(err, makeStore(t.Context(), data), os.WriteFile(program, self, 0o700), os.WriteFile(filepath.Join(dir, holdName), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			serve := func() (*exec.Cmd, *bytes.Buffer) {
				t.Helper()
				said := new(bytes.Buffer)
				cmd := exec.CommandContext(t.Context(), program, "serve", "--data", data, "--ca", ca, "--tls", "127.0.0.1:0", "--reserve", "0", "--scrub-rate", "0")
				cmd.Stderr = said
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				return cmd, said
			}
			cmd, said := serve()
			var held []string
			eventually(t, "a child", func() bool {
				held, _ = filepath.Glob(filepath.Join(dir, heldName+"*"))
				return len(held) > 0
			})
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); (err == nil) != (sig == syscall.SIGTERM) {
				t.Errorf("ended with %v:\n%s", err, said)
			}
			held, _ = filepath.Glob(filepath.Join(dir, heldName+"*"))
			for _, name := range held {
				pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(name), heldName))
				if err != nil {
					t.Fatal(err)
				}
				eventually(t, "the end of the child", func() bool { return !running(pid) })
			}
			if left, _ := filepath.Glob(filepath.Join(data, "dumps", "*", "*", dumpdir.ReportName+"*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if err := os.Remove(filepath.Join(dir, holdName)); err != nil {
				t.Fatal(err)
			}
			cmd, said = serve()
			eventually(t, "the reports", func() bool { return reported(t, data) == 3 })
			if status := corehaul(t, "status", "--data", data); !strings.Contains(status, "reports      ") {
				t.Errorf("status has no reports:\n%s", status)
			}
			if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}

// reported counts the dumps of a store that have a report of their seal.
func reported(t *testing.T, data string) (n int) {
	t.Helper()
	s, err := stores.Open(t.Context(), data, storage.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := s.List(t.Context(), storage.Filter{})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.ReportOf == dumpdir.ReportOfDump {
			n++
		}
	}
	return n
}
