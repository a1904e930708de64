package clitest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

var update = flag.Bool("update", false, "write golden files anew")

// screenWidths are the widths of the terminals that golden files show.
var screenWidths = []uint16{50, 80, 200}

// ScreensDir is where golden files are, below the directory of the package.
const ScreensDir = "testdata/screens"

// Screens returns the command "screens NAME CODE PROGRAM ARG..." for scripts. It runs a program on terminals of three widths, wants that exit
// code, and compares what it writes with the golden file NAME.
func Screens(tb testing.TB) func(*testscript.TestScript, bool, []string) {
	tb.Helper()
	dir, err := filepath.Abs(ScreensDir)
	if err != nil {
		tb.Fatal(err)
	}
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 3 {
			ts.Fatalf("usage: screens NAME CODE PROGRAM ARG...")
		}
		ts.Check(screens(filepath.Join(dir, args[0]+".txtar"), func(tty *os.File) error { return runOn(ts, tty, args[1], args[2:]) }))
	}
}

// CompareScreens compares what write writes to terminals of three widths with the golden file of that name.
func CompareScreens(t *testing.T, name string, write func(tty *os.File) error) {
	t.Helper()
	if err := screens(filepath.Join(ScreensDir, name+".txtar"), write); err != nil {
		t.Error(err)
	}
}

func runOn(ts *testscript.TestScript, tty *os.File, code string, args []string) error {
	cmd := exec.CommandContext(context.Background(), args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), tty, tty
	cmd.Env = os.Environ()
	for _, name := range []string{"COREHAUL_DATA", "TEST_SERVE_FILE"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return err
	}
	if got := strconv.Itoa(cmd.ProcessState.ExitCode()); got != code {
		return fmt.Errorf("%v exits %s, want %s", args, got, code)
	}
	return nil
}

func screens(golden string, write func(tty *os.File) error) error {
	var got txtar.Archive
	for _, columns := range screenWidths {
		s, err := openTerminal(columns)
		if err != nil {
			return err
		}
		err = write(s.TTY)
		screen := s.End()
		if err != nil {
			return fmt.Errorf("%w: %s", err, screen)
		}
		if line := tooWide(erased.ReplaceAllString(screen, ""), int(columns)); line != "" {
			return fmt.Errorf("%s: %d columns are too few for %q", golden, columns, line)
		}
		left := now.ReplaceAllString(leftOn(screen), "2024-04-04 04:04:04Z")
		got.Files = append(got.Files, txtar.File{Name: fmt.Sprintf("%d columns", columns), Data: []byte(left)})
	}
	if *update {
		return os.WriteFile(golden, txtar.Format(&got), 0o644)
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		return fmt.Errorf("%w; 'go test -update' makes it", err)
	}
	if string(want) != string(txtar.Format(&got)) {
		return fmt.Errorf("%s: got\n%s\nwant\n%s\n'go test -update' writes it anew", golden, txtar.Format(&got), want)
	}
	return nil
}

// erased matches what moves the cursor up by some lines and erases everything from there on.
var erased = lazyregexp.New(`\x1b\[(\d+)A\x1b\[J`)

// leftOn returns what is left on a terminal of what was written: whether a bar of progress came and went depends on the speed of the machine.
func leftOn(written string) string {
	var left string
	for {
		at := erased.FindStringSubmatchIndex(written)
		if at == nil {
			return left + written
		}
		left += written[:at[0]]
		lines, _ := strconv.Atoi(written[at[2]:at[3]]) // the pattern has a number
		for range lines {
			left = left[:strings.LastIndexByte(strings.TrimSuffix(left, "\n"), '\n')+1]
		}
		written = written[at[1]:]
	}
}

// now matches the times that a test takes from the clock: those of its dumps are of 2023.
var now = lazyregexp.New(`20(2[4-9]|[3-9]\d)-\d\d-\d\d \d\d:\d\d:\d\dZ`)

// whole matches lines that no terminal's width changes: messages, commands, and checksums and paths, which people copy.
var whole = lazyregexp.New(`^(corehaul|corehaul-send|hint|warning): |^  (corehaul|crash|drgn) |^(its dumps|the example): |\S{37}`)

// tooWide returns the first line that a terminal would break, but needs not.
func tooWide(screen string, columns int) string {
	for line := range strings.Lines(screen) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > columns && !whole.MatchString(line) {
			return line
		}
	}
	return ""
}
