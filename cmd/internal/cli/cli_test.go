package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// program is a root with one command "do" and one group "ca".
func program(body func(cmd *cobra.Command) error) *cobra.Command {
	root := &cobra.Command{Use: "corehaul"}
	do := &cobra.Command{
		Use: "serve ID", Aliases: []string{"do"}, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, _ []string) error { return body(cmd) },
	}
	do.Flags().String("data", "/var/lib", "where the dumps are")
	size := BytesValue(1 << 20)
	do.Flags().Var(&size, "memory", "how much")
	group := &cobra.Command{Use: "ca", Short: "Group"}
	group.AddCommand(&cobra.Command{Use: "init", RunE: func(*cobra.Command, []string) error { return nil }})
	look := &cobra.Command{Use: "look", RunE: func(cmd *cobra.Command, _ []string) error { return body(cmd) }}
	look.Flags().String("data", "/var/lib", "where the dumps are")
	look.Flags().Bool("json", false, "print JSON")
	look.Flags().String("host", "", "only of this host")
	look.Flags().Bool("force", false, "do not ask")
	look.Flags().Bool("dry-run", false, "only say")
	root.AddCommand(do, look, group)
	return root
}

func run(t *testing.T, body func(*cobra.Command) error, args ...string) (stdout, stderr string, code ExitCode) {
	t.Helper()
	var out, errOut bytes.Buffer
	err := Execute(t.Context(), Stdio{Out: &out, Err: &errOut}, program(body), args)
	code = Report(&errOut, "prog", err)
	return out.String(), errOut.String(), code
}

func TestExitCodes(t *testing.T) {
	fine := func(*cobra.Command) error { return nil }
	for _, tc := range []struct {
		name string
		body func(*cobra.Command) error
		args []string
		want ExitCode
		says string
	}{
		{"fine", fine, []string{"do", "x"}, ExitOK, ""},
		{"no command", fine, nil, ExitUsage, "no command given"},
		{"unknown command", fine, []string{"dance"}, ExitUsage, "dance"},
		{"unknown command of a group", fine, []string{"ca", "dance"}, ExitUsage, `unknown command "dance" for "corehaul ca"`},
		{"missing argument", fine, []string{"do"}, ExitUsage, "hint: 'corehaul serve --help'"},
		{"unknown flag", fine, []string{"do", "x", "--fast"}, ExitUsage, "--fast"},
		{"bad size", fine, []string{"do", "x", "--memory", "much"}, ExitUsage, "much"},
		{"plain failure", func(*cobra.Command) error { return errors.New("broken") }, []string{"do", "x"}, ExitFailure, "prog: broken\n"},
		{"partial", func(*cobra.Command) error { return fmt.Errorf("dump: %w", Partial(errors.New("cut"))) }, []string{"do", "x"}, ExitPartial, "prog: dump: cut\n"},
		{"declined with hints", func(*cobra.Command) error { return WithHint(Declined(errors.New("full")), "make room") }, []string{"do", "x"}, ExitDeclined, "prog: full\nhint: make room\n"},
		{"silent", func(*cobra.Command) error { return VerifyFailed(nil) }, []string{"do", "x"}, ExitVerify, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, stderr, code := run(t, tc.body, tc.args...)
			if code != tc.want || !strings.Contains(stderr, tc.says) || (tc.says == "" && stderr != "") {
				t.Errorf("got code %d and %q, want code %d and %q", code, stderr, tc.want, tc.says)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	root := program(func(cmd *cobra.Command) error { cancel(); return fmt.Errorf("read: %w", cmd.Context().Err()) })
	if err := Execute(ctx, Stdio{}, root, []string{"do", "x"}); CodeOf(err) != ExitInterrupted {
		t.Errorf("got %v, want exit code 130", err)
	}
}

func TestReportStaysOnOneLine(t *testing.T) {
	var out bytes.Buffer
	Report(&out, "prog", errors.New("peer says \x1b[2J\nprog: all is well"))
	if got := out.String(); strings.Count(got, "\n") != 1 || strings.Contains(got, "\x1b") {
		t.Errorf("got %q", got)
	}
}

func TestFlagsFromEnvironment(t *testing.T) {
	var dir, memory string
	body := func(cmd *cobra.Command) error {
		dir, memory = cmd.Flag("data").Value.String(), cmd.Flag("memory").Value.String()
		return nil
	}
	t.Setenv("COREHAUL_DATA", "/from/env")
	t.Setenv("COREHAUL_MEMORY", "2MiB")
	if _, stderr, code := run(t, body, "do", "x"); code != 0 || dir != "/from/env" || memory != "2MiB" || stderr != "" {
		t.Errorf("got %q %q (%s), want the environment's", dir, memory, stderr)
	}
	run(t, body, "do", "x", "--data", "/from/flag")
	if dir != "/from/flag" {
		t.Errorf("got %q, want the command line to win", dir)
	}
	t.Setenv("COREHAUL_MEMORY", "lots")
	if _, stderr, code := run(t, body, "do", "x"); code != ExitUsage || !strings.Contains(stderr, "COREHAUL_MEMORY") {
		t.Errorf("got %d %q, want a usage error that names the variable", code, stderr)
	}
}

// TestEnvironmentDoesNotFilterOrDelete has variables that were set for something else: they choose where and how a command
// prints, and nothing of what it shows or does. What would have had an effect is said.
func TestEnvironmentDoesNotFilterOrDelete(t *testing.T) {
	got := map[string]string{}
	body := func(cmd *cobra.Command) error {
		for _, name := range []string{"data", "json", "host", "force", "dry-run"} {
			got[name] = cmd.Flag(name).Value.String()
		}
		return nil
	}
	for name, value := range map[string]string{"DATA": "/from/env", "JSON": "true", "HOST": "web2", "FORCE": "true", "DRY_RUN": "true"} {
		t.Setenv("COREHAUL_"+name, value)
	}
	_, stderr, code := run(t, body, "look")
	want := map[string]string{"data": "/from/env", "json": "true", "host": "", "force": "false", "dry-run": "true"}
	if code != 0 || !maps.Equal(got, want) {
		t.Errorf("got code %d and %v, want %v", code, got, want)
	}
	said := "corehaul: warning: environment variable COREHAUL_HOST is ignored: 'corehaul look' takes --host from the command line only\n"
	if !strings.Contains(stderr, said) || !strings.Contains(stderr, "COREHAUL_FORCE") || strings.Contains(stderr, "COREHAUL_DATA") {
		t.Errorf("said %q", stderr)
	}
	if _, stderr, _ = run(t, body, "look", "--host", "db1", "--force"); stderr != "" || got["host"] != "db1" {
		t.Errorf("with the flags on the command line: %q, %v", stderr, got)
	}
	t.Setenv("COREHAUL_FORCE", "false") // the default: no effect, no word
	t.Setenv("COREHAUL_HOST", "")
	if _, stderr, _ = run(t, body, "look"); stderr != "" {
		t.Errorf("variables without effect: %q", stderr)
	}
	help, _, _ := run(t, body, "look", "--help")
	table, _, _ := run(t, body, "help", "environment")
	for _, text := range []string{help, table} {
		if !strings.Contains(text, "COREHAUL_JSON") || strings.Contains(text, "COREHAUL_HOST") || strings.Contains(text, "COREHAUL_FORCE") {
			t.Errorf("help:\n%s", text)
		}
	}
}

func TestHelp(t *testing.T) {
	stdout, _, code := run(t, nil, "do", "--help")
	for _, want := range []string{"[$COREHAUL_DATA]", "4    declined by the receiver", "130  interrupted"} {
		if !strings.Contains(stdout, want) || code != 0 {
			t.Errorf("help lacks %q:\n%s", want, stdout)
		}
	}
	stdout, _, _ = run(t, nil, "help", "environment")
	if !strings.Contains(stdout, "COREHAUL_MEMORY") {
		t.Errorf("table of variables:\n%s", stdout)
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		850 * time.Millisecond:            "850ms",
		12340 * time.Millisecond:          "12.3s",
		245 * time.Second:                 "4m05s",
		2*time.Hour + 3*time.Minute:       "2h03m",
		59*time.Second + 990*1000*1000:    "59.9s",
		-(3*time.Second + 10*time.Minute): "-10m03s",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v: got %q, want %q", int64(d), got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain":        "plain",
		"größe":        "größe",
		"a\tb\nc":      `a\x09b\x0ac`,
		"\x1b[31mred":  `\x1b[31mred`,
		"\xff\xfe":     `\xff\xfe`,
		"\u202egnirts": `\xe2\x80\xaegnirts`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestTextOutput leaves a file what it gets, byte by byte. What a terminal gets is tested where commands write to one.
func TestTextOutput(t *testing.T) {
	const text = "a\x1b[2J\tb\n\x7f\u009b\x9b\u202e\xe2"
	var buf bytes.Buffer
	out := TextOutput(&buf)
	if _, err := io.WriteString(out, text); err != nil || out.Close() != nil || buf.String() != text {
		t.Errorf("got %q, %v", buf.String(), err)
	}
}

// TestJSONIsShownSafely prints documents that stay what they are and have nothing in them that could steer a terminal.
func TestJSONIsShownSafely(t *testing.T) {
	in := map[string]string{"text": "C1 \u009b, override \u202e, tag \U000e0041, <größe>"}
	for _, print := range []func(io.Writer, any) error{JSON, JSONLine} {
		var buf bytes.Buffer
		if err := print(&buf, in); err != nil {
			t.Fatal(err)
		}
		var out map[string]string
		if err := json.Unmarshal(buf.Bytes(), &out); err != nil || out["text"] != in["text"] {
			t.Errorf("%s: %v", buf.String(), err)
		}
		if want := `"C1 \u009b, override \u202e, tag \udb40\udc41, <größe>"`; !strings.Contains(buf.String(), want) {
			t.Errorf("got %q, want %q in it", buf.String(), want)
		}
	}
}
