package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/e2e/lab"
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

// TestImport has makedumpfile 1.7.2 write the dump of a real crash in the forms that kdump leaves on disks. What import makes of each has the
// same pages for libkdumpfile, and crash says the same of it. The second import changes nothing.
func TestImport(t *testing.T) {
	t.Parallel()
	c, _, vmlinux := judgesCapture(t, "6.1")
	tree, data := filepath.Join(t.TempDir(), "crash"), filepath.Join(t.TempDir(), "data")
	plain := filepath.Join(t.TempDir(), "plain")
	in := func(dir, name string) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(tree, dir, name)
	}
	makedumpfile := func(out string, args ...string) {
		t.Helper()
		argv, err := lab.Makedumpfile172Command(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		stockPipe(t, argv, "", out)
	}
	const redhat, debian, suse, split, lost, cut = "10.0.2.15-2026-11-25-08:00:00", "202611250800", "2026-11-25-08-00", "split", "lost", "cut"
	const flatELF, packed = "flatelf", "packed"
	makedumpfile(in(redhat, "vmcore.flat"), "-F", "-l", "-d", "31", c.ELF)
	makedumpfile(in(flatELF, "vmcore.flat"), "-F", "-E", "-d", "31", c.ELF)
	makedumpfile(os.DevNull, "-l", "-d", "31", c.ELF, plain)
	stockPipe(t, []string{"gzip", "-1", "-c", plain}, "", in(packed, "vmcore.gz"))
	makedumpfile(os.DevNull, "-c", "-d", "31", c.ELF, in(debian, "dump."+debian))
	makedumpfile(os.DevNull, "-E", "-d", "31", c.ELF, in(suse, "vmcore"))
	makedumpfile(os.DevNull, "-c", "-d", "31", "--split", "--splitblock-size", "16", c.ELF, in(split, "vmcore1"), in(split, "vmcore2"))
	second, err := os.ReadFile(in(split, "vmcore2"))
	if err == nil {
		err = os.WriteFile(in(lost, "vmcore2"), second, 0o600)
	}
	whole, readErr := os.ReadFile(plain)
	if err := errors.Join(err, readErr, os.WriteFile(in(cut, "vmcore"), whole[:len(whole)/2], 0o600)); err != nil {
		t.Fatal(err)
	}
	got := importTree(t, data, tree, 3)
	states := map[string]string{redhat: "complete", debian: "complete", suse: "complete", split: "complete", lost: "partial", cut: "partial", flatELF: "complete", packed: "complete"}
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
		case dir == suse || dir == flatELF:
			stockSame(t, stored, in(suse, "vmcore"))
		case state == "complete":
			if pages := judgesPages(t, stored); pages != want {
				t.Errorf("%s: pages %+v, want %+v", dir, pages, want)
			}
		}
	}
	if len(got) != len(states) || got[lost].ID == got[split].ID || got[cut].ID == got[redhat].ID || got[debian].ID != got[split].ID ||
		got[packed].ID != got[redhat].ID || got[flatELF].ID != got[suse].ID {
		t.Errorf("%+v", got)
	}
	if !strings.Contains(got[lost].Reason, "piece of the --split set with pfn 0 to ") {
		t.Errorf("without a piece: %s", got[lost].Reason)
	}
	stored := filepath.Join(importDir(t, data, got[redhat]), dumpdir.VMCoreName)
	commands := []string{"sys", "bt -a", "ps"}
	judgesSame(t, judgesCrash(t, vmlinux, stored, commands...), judgesCrashOriginal(t, c, commands...))
	before := importFiles(t, data)
	for dir, line := range importTree(t, data, tree, 3) {
		if line.Result != "present" || line.ID != got[dir].ID {
			t.Errorf("%s the second time: %+v", dir, line)
		}
	}
	if after := importFiles(t, data); !maps.Equal(before, after) {
		t.Errorf("the second import changed the store: %v, before %v", after, before)
	}
}

// importFiles has sizes and times of all files of dumps.
func importFiles(t *testing.T, data string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(data, dumpdir.DumpsName), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	return files
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
