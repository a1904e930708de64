package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// write makes a module of one package with these tests.
func write(t *testing.T, source string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.org/m\n\ngo 1.26\n", "m_test.go": source} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// timed runs the tests of a module as a phase and returns what was printed, what was noted, and the error.
func timed(t *testing.T, dir string) (said, report string, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "times")
	var out, table bytes.Buffer
	err = run(t.Context(), []string{"-to", file, "some", "go", "-C", dir, "test", "-json", "."}, &out)
	if reportErr := run(t.Context(), []string{"-report", file}, &table); reportErr != nil {
		t.Fatal(reportErr)
	}
	return out.String(), table.String(), err
}

func TestPrintsWhatGoTestPrints(t *testing.T) {
	dir := write(t, `package m

import ("testing"; "time")

func TestGood(t *testing.T) { t.Log("of no interest"); time.Sleep(20 * time.Millisecond) }
func TestBad(t *testing.T)  { t.Run("part", func(t *testing.T) { t.Log("is told"); t.Fail() }) }
`)
	said, report, err := timed(t, dir)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", err)
	}
	plain := exec.CommandContext(t.Context(), "go", "-C", dir, "test", ".")
	want, err := plain.Output()
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	// The times of the two runs differ.
	withoutTimes := func(text string) string {
		var lines []string
		for _, line := range strings.Split(strings.ReplaceAll(text, "\t", " "), "\n") {
			words := strings.Fields(line)
			if n := len(words); n > 1 && strings.HasSuffix(strings.Trim(words[n-1], "()"), "s") {
				words = words[:n-1]
			}
			lines = append(lines, strings.Join(words, " "))
		}
		return strings.Join(lines, "\n")
	}
	if got, want := withoutTimes(said), withoutTimes(string(want)); got != want {
		t.Errorf("got\n%s\ngo test prints\n%s", got, want)
	}
	for _, row := range []string{"| some | ", "| example.org/m | some | ", "| example.org/m TestGood | some | 0.0 |", "| example.org/m TestBad/part | some | ", "is told"} {
		if !strings.Contains(report, row) {
			t.Errorf("no row %q in\n%s", row, report)
		}
	}
	if strings.Contains(report, "TestBad |") {
		t.Errorf("a test is counted beside its subtests:\n%s", report)
	}
}

// TestPrintsWhatADeadProcessSaid has tests whose process ends in the middle, and one that does not compile.
func TestPrintsWhatADeadProcessSaid(t *testing.T) {
	for _, tc := range []struct{ name, source, want string }{
		{"panic", "package m\n\nimport \"testing\"\n\nfunc TestDies(t *testing.T) { panic(\"no more\") }\n", "panic: no more"},
		{"exit", "package m\n\nimport (\"os\"; \"testing\")\n\nfunc TestExits(t *testing.T) { println(\"last words\"); os.Exit(3) }\n", "last words"},
		{"compile", "package m\n\nimport \"testing\"\n\nfunc TestNo(t *testing.T) { undefined() }\n", "undefined: undefined"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			said, _, err := timed(t, write(t, tc.source))
			if err == nil || !strings.Contains(said, tc.want) || !strings.Contains(said, "FAIL\texample.org/m") {
				t.Errorf("error %v, want one, and %q and FAIL in\n%s", err, tc.want, said)
			}
		})
	}
}

func TestReportGoesBetweenTheMarksOfAPage(t *testing.T) {
	dir := t.TempDir()
	file, page := filepath.Join(dir, "times"), filepath.Join(dir, "page.md")
	if err := run(t.Context(), []string{"-to", file, "quick", "true"}, new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, []byte("before\n"+beginMark+"old\n"+endMark+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"-report", file, "-doc", page}, new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	got := string(b)
	if !strings.HasPrefix(got, "before\n"+beginMark) || !strings.HasSuffix(got, endMark+"after\n") ||
		strings.Contains(got, "old") || !strings.Contains(got, "| quick | 0 | 0 |") {
		t.Errorf("got %q", got)
	}
	if err := run(t.Context(), []string{"-report", file, "-doc", file}, new(bytes.Buffer)); err == nil {
		t.Error("no error for a page without marks")
	}
}
