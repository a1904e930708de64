package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/corehaul/corehaul/cmd/internal/cli"
)

// TestImportAsRoot imports as root into the data directory of another user: nothing is made there, and the hint says how to do it.
func TestImportAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	data, file := t.TempDir(), filepath.Join(t.TempDir(), "core.kdump")
	if err := makeFile(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	var out, errOut strings.Builder
	err := run(t.Context(), cli.Stdio{Out: &out, Err: &errOut}, []string{"import", file, "--data", data})
	if err == nil || !strings.Contains(strings.Join(cli.Hints(err), "\n"), "sudo -u '#12345' corehaul import") {
		t.Errorf("got %v, hints %q", err, cli.Hints(err))
	}
	if entries, err := os.ReadDir(data); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := run(t.Context(), cli.Stdio{Out: &out, Err: &errOut}, []string{"import", "--dry-run", file, "--data", data}); err != nil {
		t.Errorf("a dry run: %v", err)
	}
}

// TestImportForbidden imports as a user who may not read some of the files: the others are imported, each of these gets a line and the hint,
// and a log beside a vmcore that cannot be read is no dump.
func TestImportForbidden(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	const nobody = 65534
	top := t.TempDir()
	data, tree := filepath.Join(top, "data"), filepath.Join(top, "crash")
	for _, dir := range []string{data, filepath.Join(tree, "ok"), filepath.Join(tree, "closed"), filepath.Join(tree, "web1-202611250800")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file, closed := filepath.Join(tree, "ok/vmcore"), filepath.Join(tree, "web1-202611250800/dump.202611250800")
	log := filepath.Join(tree, "web1-202611250800/dmesg.202611250800")
	if err := errors.Join(
		makeFile(file), makeFile(closed), os.Chmod(closed, 0o600), os.WriteFile(log, []byte("[ 0.0] Linux\n"), 0o644), os.Chtimes(log, time.Time{}, time.Now().Add(-time.Hour)),
		os.Chtimes(file, time.Time{}, time.Now().Add(-time.Hour)), os.Chmod(filepath.Join(tree, "closed"), 0o700), os.Chown(data, nobody, nobody),
		os.Chmod(top, 0o755), os.Chmod(filepath.Dir(top), 0o755),
	); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe") // its directory is closed, too
	cmd.Args, cmd.Dir = []string{"corehaul", "import", tree, "--data", data}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v", err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "not imported: "+filepath.Join(tree, "closed")+": ") || !strings.HasPrefix(lines[1], "imported victim/") ||
		!strings.HasPrefix(lines[2], "not imported: "+closed+": ") || !strings.Contains(errOut.String(), "hint: let the user who imports read the files: setfacl -R -m u:65534:rX") {
		t.Errorf("%s\n%s", out.String(), errOut.String())
	}
}

// TestImportJSON: scripts read these lines, so no member changes its name.
func TestImportJSON(t *testing.T) {
	data, tree := filepath.Join(t.TempDir(), "data"), t.TempDir()
	old := time.Now().Add(-time.Hour)
	for name, text := range map[string]string{
		"a/SHA256SUMS": strings.Repeat("0", 64) + "  vmcore\nnonsense\n", "bad/vmcore": strings.Repeat("x", 8192), strings.Repeat("long", 3) + "/x": "",
	} {
		path := filepath.Join(tree, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	big := filepath.Join(tree, "a/big")
	if err := errors.Join(makeFile(filepath.Join(tree, "a/vmcore")), os.WriteFile(big, nil, 0o600), os.Truncate(big, 257<<20)); err != nil {
		t.Fatal(err)
	}
	got := map[string]map[string]bool{}
	for _, args := range [][]string{{"--dry-run"}, {}} {
		var out, errOut strings.Builder
		err := run(t.Context(), cli.Stdio{Out: &out, Err: &errOut}, append([]string{"import", "--json", tree, "--data", data}, args...))
		if err == nil {
			t.Error("a file that is no dump is no error")
		}
		for dec := json.NewDecoder(strings.NewReader(out.String())); dec.More(); {
			var line map[string]any
			if err := dec.Decode(&line); err != nil {
				t.Fatal(err)
			}
			of := fmt.Sprint(line["type"])
			if got[of] == nil {
				got[of] = map[string]bool{}
			}
			members(got[of], "", line)
		}
	}
	for of, want := range map[string]string{
		"dump":    "bytes compared crash_time error host host_from id not_kept[] path reason result state type warnings[]",
		"summary": "damaged dry_run failed imported later left_out partial present type",
	} {
		if have := strings.Join(slices.Sorted(maps.Keys(got[of])), " "); have != want {
			t.Errorf("%s: %s", of, have)
		}
	}
}
