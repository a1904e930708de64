package pid1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestShell: a shell is on the terminal of the console after the dump, whatever came of that, and then the machine reboots. A shell
// that does not start delays that. The watchdog is fed as long as somebody is there, for a day, and then resets a machine that hangs in its
// reboot.
func TestShell(t *testing.T) {
	failure := errors.New("the image has none")
	const day = 24 * time.Hour
	for _, tc := range []struct {
		name, active string
		out          Outcome
		nowayout     bool
		err          error
		terminal     string
		last         string
		down         time.Duration
	}{
		{"a dump", "tty0 ttyS0\n", Outcome{Line: "dump complete", State: "complete"}, false, nil, "/dev/ttyS0", "rebooting", day},
		{"a watchdog that cannot be stopped", "ttyS0\n", Outcome{Line: "dump complete", State: "complete"}, true, nil, "/dev/ttyS0", "rebooting", day},
		{"no dump", "ttyAMA0\n", Outcome{Line: "dump failed", Failed: true}, false, nil, "/dev/ttyAMA0", "rebooting", day},
		{"the kernel does not say where its console is", "", Outcome{Line: "dump complete", State: "complete"}, false, nil, "/dev/console", "rebooting", day},
		{"no shell", "tty0\n", Outcome{Line: "dump complete", State: "complete"}, false, failure, "/dev/tty0", "warning: shell: the image has none; rebooting in 10 s", failurePause},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake("watchdog = \"1m\"\n" + goodConfig)
			f.files["/proc/cmdline"] = "corehaul.after=shell"
			f.files[activePath] = tc.active
			f.dog, f.shellErr, f.rebootTakes = &fakeDog{after: 30 * time.Second, nowayout: tc.nowayout}, tc.err, time.Hour
			lines := boot(t, f, func(context.Context, Env) Outcome { return tc.out })
			if f.terminal != tc.terminal || !slices.Contains(f.shellEnv, "COREHAUL_RESULT="+tc.out.Line) {
				t.Errorf("a shell on %q with %q, want it on %s", f.terminal, f.shellEnv, tc.terminal)
			}
			last := strings.Join(lines[len(lines)-3:], "\n")
			want := "corehaul-send: watchdog: left on and fed until the reboot; it resets a machine that has not rebooted within 30s then\n" +
				"corehaul-send: " + tc.out.Line + "; a shell is on " + tc.terminal + ", and 'exit' reboots\ncorehaul-send: " + tc.last
			if last != want {
				t.Errorf("last lines\n%s\nwant\n%s", last, want)
			}
			if !slices.Equal(f.ended, []string{"shell"}) || f.dog.bit != tc.down+30*time.Second {
				t.Errorf("ended %q; the watchdog bit after %v, want %v", f.ended, f.dog.bit, tc.down+30*time.Second)
			}
		})
	}
}

// terminal makes a terminal, and returns the end of the people and the name of the end of programs.
func terminal(t *testing.T) (people *os.File, name string) {
	t.Helper()
	people, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = people.Close() })
	if err := unix.IoctlSetPointerInt(int(people.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(people.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return people, fmt.Sprintf("/dev/pts/%d", n)
}

// TestStartShell: a shell is on a terminal, with its variables, and Ctrl-C ends a program and not the shell.
func TestStartShell(t *testing.T) {
	people, name := terminal(t)
	// What people type before a program has the terminal open may be lost.
	open, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }() // again
	done := make(chan error, 1)
	go func() { done <- startShell("/bin/sh", name, []string{"PATH=/bin:/usr/bin", "COREHAUL_STATE=partial"}) }()
	write := func(text string) {
		if _, err := people.WriteString(text); err != nil {
			t.Error(err)
		}
	}
	write("echo is $COREHAUL_STATE; tty; sh -c 'echo begins-$((6*7)); exec sleep 1000'\n")
	var seen []string
	for lines := bufio.NewScanner(people); lines.Scan(); { // it fails when the shell has ended
		line := strings.TrimSpace(lines.Text())
		seen = append(seen, line)
		switch {
		case strings.HasSuffix(line, "begins-42"):
			_ = open.Close() // the shell has it open
			write("\x03")
		case strings.HasSuffix(line, "^C"):
			write("echo goes-on-$((6*7)); exit 3\n")
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, want := range []string{"is partial", name, "begins-42", "goes-on-42"} {
		if !slices.ContainsFunc(seen, func(line string) bool { return strings.HasSuffix(line, want) }) {
			t.Errorf("no line %q in %q", want, seen)
		}
	}
	if err := startShell("/bin/none", name, nil); err == nil {
		t.Error("a shell that is not there ran")
	}
}
