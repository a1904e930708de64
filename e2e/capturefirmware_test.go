package e2e

import (
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// TestCaptureFirmware: the only card of the machine works with firmware only, which the image has.
func TestCaptureFirmware(t *testing.T) {
	t.Parallel()
	const kernel = "6.1-generic"
	s := judgesServe(t)
	initrd := capturePackTree(t, e100Tree(t, kernel), s.captureTarget(t, s.address(t)), "e100")
	said := captureRun(t, lab.Scenario{Kernel: kernel, MemMiB: 512}, initrd, lab.SenderOptions{Card: "i82551"})
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
