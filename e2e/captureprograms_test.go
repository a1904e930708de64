package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// siteProgram says what it knows, and does not end after the dump.
const siteProgram = `package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	stage := os.Getenv("COREHAUL_STAGE")
	fmt.Println("this is", stage, os.Getenv("COREHAUL_STATE"), os.Getenv("COREHAUL_TARGET"))
	if stage == "post" {
		time.Sleep(time.Hour)
	}
	os.Exit(3)
}
`

// sitePrograms is a part of a configuration, with a program that fails before the dump and hangs after it.
func sitePrograms(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte(siteProgram), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return fmt.Sprintf("[programs]\npre = [%q]\npost = [%q]\nlimit = \"20s\"\n", program, program)
}

// checkPrograms checks that the programs ran in their places, and cost no dump.
func checkPrograms(t *testing.T, said string) {
	t.Helper()
	rest := said
	for _, want := range []string{
		"this is pre\n", "warning: pre program ", ": exit status 3", "dump of lab-guest", "this is post complete tls://", "warning: post program ", ": killed after 20s", "dump complete: ",
	} {
		_, after, ok := strings.Cut(strings.ReplaceAll(rest, "\r", ""), want)
		if !ok {
			t.Errorf("the console lacks %q in its place", want)
			continue
		}
		rest = after
	}
}
