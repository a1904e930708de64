package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// captureShell is a part of a configuration: a shell after the dump.
func captureShell(t *testing.T) string {
	t.Helper()
	busybox, err := lab.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("after = \"shell\"\nshell = %q\n", busybox)
}

// captureShellWatchdog is the driver of the watchdog with the shortest timeout that the sender keeps, in seconds, and without a way to stop
// it: it resets the machine unless somebody feeds it.
const captureShellWatchdog = watchdogDevice + " heartbeat=10 nowayout=1"

// consoleTyped is what somebody types when the console shows a line with a text.
type consoleTyped struct{ sees, types string }

// A consoleUser types on the console of a machine.
type consoleUser struct {
	t     *testing.T
	input *os.File // the machine's end
	keys  *os.File
	types []consoleTyped
	next  int // of types
}

// newConsoleUser is somebody who uses a shell: its programs, its variables, and Ctrl-C, which ends a program and not the shell.
func newConsoleUser(t *testing.T) *consoleUser {
	t.Helper()
	input, keys, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = input.Close(), keys.Close() })
	return &consoleUser{t: t, input: input, keys: keys, types: []consoleTyped{
		{"; a shell is on /dev/ttyS0, and 'exit' reboots", "ls -l /proc/vmcore | sed 's/^/lists: /'; echo the dump is $COREHAUL_STATE; sh -c 'echo begins-$((6*7)); exec sleep 10000'\n"},
		{"lists: -r--------", ""},
		{"the dump is complete", ""},
		{"begins-42", "\x03"},
		{"^C", "sleep 15; echo goes-on-$((6*7)); exit\n"}, // longer than captureShellWatchdog waits
		{"goes-on-42", ""},
	}}
}

// reads is lab.SenderOptions.OnLine.
func (u *consoleUser) reads(line string) {
	for u.next < len(u.types) && strings.Contains(line, u.types[u.next].sees) {
		if _, err := u.keys.WriteString(u.types[u.next].types); err != nil {
			u.t.Error(err)
		}
		u.next++
	}
}
