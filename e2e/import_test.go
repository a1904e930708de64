package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
)

// importLine is what the test reads of a line of import --json.
type importLine struct {
	Path, Result, Host, ID, State, Reason string
}

// importTree runs the command on a tree, and returns its lines by the name of the directory.
func importTree(t *testing.T, data, tree string, code int) map[string]importLine {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), captureReceiver, "import", "--json", "--data", data, tree)
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != code {
		t.Fatalf("import: %v, want exit code %d\n%s%s", err, code, out.String(), text.String())
	}
	lines := map[string]importLine{}
	for dec := json.NewDecoder(&out); dec.More(); {
		var line importLine
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		if line.Path != "" {
			lines[filepath.Base(filepath.Dir(line.Path))] = line
		}
	}
	return lines
}

// TestImport has makedumpfile write the dump of a real crash in the forms that kdump leaves on disks. What import makes of each has the same
// pages for libkdumpfile, and crash says the same of it.
func TestImport(t *testing.T) {
	t.Parallel()
	c, k, vmlinux := judgesCapture(t, "6.1")
	tree, data := filepath.Join(t.TempDir(), "crash"), filepath.Join(t.TempDir(), "data")
	flat, plain := stockStream(t, k, c.ELF, "-l", "-d", "31")
	in := func(dir, name string) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(tree, dir, name)
	}
	makedumpfile := func(args ...string) {
		t.Helper()
		if out, err := k.Makedumpfile(t.Context(), append([]string{"--message-level", "4"}, args...)...); err != nil {
			t.Fatalf("makedumpfile %q: %v\n%s", args, err, out)
		}
	}
	const redhat, debian, suse, split, lost, cut = "10.0.2.15-2026-11-25-08:00:00", "202611250800", "2026-11-25-08-00", "split", "lost", "cut"
	if err := os.Rename(flat, in(redhat, "vmcore.flat")); err != nil {
		t.Fatal(err)
	}
	makedumpfile("-c", "-d", "31", c.ELF, in(debian, "dump."+debian))
	makedumpfile("-E", "-d", "31", c.ELF, in(suse, "vmcore"))
	makedumpfile("-z", "-d", "31", "--split", "--splitblock-size", "16", c.ELF, in(split, "vmcore1"), in(split, "vmcore2"))
	second, err := os.ReadFile(in(split, "vmcore2"))
	if err == nil {
		err = os.WriteFile(in(lost, "vmcore2"), second, 0o600)
	}
	whole, readErr := os.ReadFile(plain)
	if err := errors.Join(err, readErr, os.WriteFile(in(cut, "vmcore"), whole[:len(whole)/2], 0o600)); err != nil {
		t.Fatal(err)
	}
	got := importTree(t, data, tree, 3)
	states := map[string]string{redhat: "complete", debian: "complete", suse: "complete", split: "complete", lost: "partial", cut: "partial"}
	want := judgesPages(t, plain)
	for dir, state := range states {
		line := got[dir]
		// The same pages in another form are the same dump, whichever comes first.
		if line.State != state || line.Result != "imported" && line.Result != "present" || line.Host == "" {
			t.Errorf("%s: %+v, want %s", dir, line, state)
			continue
		}
		stored := filepath.Join(importDir(t, data, line), dumpdir.VMCoreName)
		switch {
		case dir == suse:
			stockSame(t, stored, in(suse, "vmcore"))
		case state == "complete":
			if pages := judgesPages(t, stored); pages != want {
				t.Errorf("%s: pages %+v, want %+v", dir, pages, want)
			}
		}
	}
	if len(got) != len(states) || got[lost].ID == got[split].ID || got[cut].ID == got[redhat].ID || got[debian].ID != got[split].ID {
		t.Errorf("%+v", got)
	}
	if !strings.Contains(got[lost].Reason, "piece of the --split set with pfn 0 to ") {
		t.Errorf("without a piece: %s", got[lost].Reason)
	}
	stored := filepath.Join(importDir(t, data, got[redhat]), dumpdir.VMCoreName)
	commands := []string{"sys", "bt -a", "ps"}
	judgesSame(t, judgesCrash(t, vmlinux, stored, commands...), judgesCrashOriginal(t, c, commands...))
	for dir, line := range importTree(t, data, tree, 3) {
		if line.Result != "present" || line.ID != got[dir].ID {
			t.Errorf("%s the second time: %+v", dir, line)
		}
	}
}

// importDir is the directory of an imported dump.
func importDir(t *testing.T, data string, line importLine) string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(data, dumpdir.DumpsName, line.Host, "*-"+line.ID[:dumpdir.ShortID]))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("%+v: %q, %v", line, dirs, err)
	}
	return dirs[0]
}
