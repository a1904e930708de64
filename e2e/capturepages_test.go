package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// TestCaptureLargePages is TestCapture for arm64 with pages of 16 KiB: the sender runs in a capture kernel
// that has them, and sends in pages of that size what its filter leaves of the machine.
func TestCaptureLargePages(t *testing.T) {
	t.Parallel()
	const memMiB, pageSize = 1 << 10, 16 << 10
	scenario := lab.Scenario{Kernel: "backports-arm64-16k", CPU: "max", MemMiB: memMiB}
	store := judgesServe(t)
	initrd := store.captureImageARM64(t, scenario.Kernel)
	said := captureRun(t, scenario, initrd, lab.SenderOptions{})
	captureCheckConsole(t, said)
	store.checkCaptured(t)
	d := store.one(t)
	r, err := dumpfile.Open(filepath.Join(d.Path, "vmcore"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if got := r.Info().PageSize; got != pageSize {
		t.Errorf("pages of %d bytes, want %d", got, pageSize)
	}
	// An idle machine is mostly free pages.
	if most := uint64(memMiB << 20 / pageSize / 4); d.Manifest.Pages.Present > most {
		t.Errorf("%d pages are kept, want at most %d", d.Manifest.Pages.Present, most)
	}
}

// captureImageARM64 builds the sender for arm64 and packs it for a guest with that kernel.
func (s *judgesStore) captureImageARM64(t *testing.T, kernel string) string {
	t.Helper()
	k, err := lab.GetKernel(t.Context(), kernel)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	captureCommand(t, "env", "CGO_ENABLED=0", "GOARCH=arm64", "go", "-C", "..", "build", "-trimpath", "-ldflags=-s -w", "-o", in("send"), "./cmd/corehaul-send")
	settings := fmt.Sprintf("to = [\"tls://%s:%s\"]\nidentity = %q\npatience = \"5m\"\n[network]\nmode = \"dhcp\"\n",
		lab.HostFromGuest, capturePort(t, s.address(t)), s.issue(t, captureHost))
	if err := os.WriteFile(in("send.toml"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	captureCommand(t, captureSender, "initrd", "--init", in("send"), "--kernel-modules", k.ModulesDir, "--config", in("send.toml"),
		"--module", "virtio_pci", "--module", "virtio_net", "-o", in("capture.img"))
	return in("capture.img")
}
