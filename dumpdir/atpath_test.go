package dumpdir_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// TestAtPath names dumps, and what is none, in every way.
func TestAtPath(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "node1", "d")
	complete(t, dumpdir.OS{}, dir, dumpdirtest.NewMachine(80, 20, 8))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "copy.kdump"), []byte("KDUMP   "), 0o600))
	must(os.Symlink(dir, filepath.Join(base, "link")))
	must(os.Symlink(filepath.Join(dir, "vmcore"), filepath.Join(base, "away.kdump")))
	kdump := filepath.Join(base, "127.0.0.1-2026-01-01") // as kdump leaves a dump
	must(os.Mkdir(kdump, 0o700))
	for _, name := range []string{"vmcore", "vmcore-dmesg.txt", "chunks"} {
		must(os.WriteFile(filepath.Join(kdump, name), []byte("KDUMP   of another tool"), 0o600))
	}
	for _, tc := range []struct {
		path, file string
		ok         bool
	}{
		{dir, "", true},
		{dir + "/", "", true},
		{base + "/link", "", true},
		{base + "/link/vmcore", "vmcore", true},
		{base + "/away.kdump", "vmcore", true},
		{base + "/node1/../node1/d/chunks", "chunks", true},
		{dir + "/vmcore-dmesg.txt", "vmcore-dmesg.txt", true},
		{dir + "/vmcore-incomplete", "vmcore-incomplete", true}, // not there any more
		{dir + "/copy.kdump", "", false},
		{dir + "/missing", "", false},
		{base, "", false},
		{base + "/node1", "", false},
		{kdump, "", false},
		{kdump + "/vmcore", "", false},
		{base + "/nowhere/vmcore", "", false},
		{"/proc/vmcore", "", false},
		{"", "", false},
	} {
		got, file, ok := dumpdir.AtPath(tc.path)
		if ok != tc.ok || ok && (got != dir || file != tc.file) {
			t.Errorf("%s: %s, %s, %v", tc.path, got, file, ok)
		}
	}
	t.Chdir(dir)
	for _, path := range []string{".", "vmcore", "./chunks", "../d"} {
		if got, _, ok := dumpdir.AtPath(path); !ok || got != dir {
			t.Errorf("%s: %s, %v", path, got, ok)
		}
	}
	for _, gone := range []string{dumpdir.JournalName, dumpdir.ManifestName} {
		must(os.Rename(gone, filepath.Join(base, gone)))
		if _, _, ok := dumpdir.AtPath("vmcore"); !ok {
			t.Errorf("without %s it is no dump any more", gone)
		}
	}
}
