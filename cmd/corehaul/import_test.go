package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
