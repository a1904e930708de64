package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// TestCaptureFirmware: the only card of the machine works with firmware only, which the image has. After the dump, somebody uses its
// shell on the console, for longer than the watchdog waits, until the machine reboots.
func TestCaptureFirmware(t *testing.T) {
	t.Parallel()
	const kernel = "6.1-generic"
	s := judgesServe(t)
	initrd := capturePackTree(t, e100Tree(t, kernel), s.captureTarget(t, s.address(t))+captureShell(t), captureShellWatchdog, "e100")
	user := newConsoleUser(t)
	said := captureRun(t, lab.Scenario{Kernel: kernel, MemMiB: 512}, initrd, lab.SenderOptions{
		Card: "i82551", Devices: []string{watchdogDevice}, Input: user.input, OnLine: user.reads,
		OnEvent: func(name string) {
			if name == "WATCHDOG" {
				t.Error("the watchdog has reset the machine under somebody's hands")
			}
		},
	})
	said, end, _ := strings.Cut(said, "corehaul-send: rebooting")
	if strings.TrimSpace(end) != "" || user.next < len(user.types) {
		t.Errorf("of the shell, somebody saw %d answers of %d; it ended with %q", user.next, len(user.types), end)
	}
	captureCheckConsole(t, said)
	s.checkCaptured(t)
}

// e100Tree is the tree of modules of a kernel, in a system that has the firmware for i82551.
func e100Tree(t *testing.T, kernel string) string {
	t.Helper()
	k, err := lab.GetKernel(t.Context(), kernel)
	if err != nil {
		t.Fatal(err)
	}
	firmware, name, err := lab.E100Firmware(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tree := filepath.Join(dir, "lib/modules", k.Release)
	captureCommand(t, "install", "-D", firmware, filepath.Join(dir, "lib/firmware", name))
	captureCommand(t, "install", "-d", filepath.Dir(tree))
	captureCommand(t, "ln", "-s", k.ModulesDir, tree)
	return tree
}
