package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// TestNetboot types what machine.md says about machines without a disk, where their image is made. Then iPXE boots one: it arms at
// boot and panics.
func TestNetboot(t *testing.T) {
	t.Parallel()
	store := judgesServe(t)
	k, err := lab.GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := lab.NetbootRoot(t.Context(), k, in("root")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(in("bin"), os.DirFS("../bin")); err != nil {
		t.Fatal(err)
	}
	captureCommand(t, "cp", store.issue(t, captureHost), in("web-17.pem"))
	captureCommand(t, "install", "-D", k.Image, in("tftp/vmlinuz"))
	typed := 0
	for _, r := range readRecipes(t, "docs/machine.md") {
		if strings.Join(r.words, " ") != "sh netboot" {
			continue
		}
		typed++
		text := strings.ReplaceAll(r.text, "collector.example.net:7420", lab.HostFromGuest+":"+capturePort(t, store.address(t)))
		captureCommand(t, "bash", "-e", "-o", "pipefail", "-c", "cd "+dir+"\n"+text)
	}
	if typed == 0 {
		t.Fatal("the document has nothing to type")
	}
	ctx, cancel := context.WithTimeout(t.Context(), captureTimeout)
	defer cancel()
	run, err := lab.RunNetboot(ctx, in("tftp"), "boot.ipxe")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(run.Console, "lab: status ended with 0\r\n") {
		t.Errorf("the machine was not ready to dump:\n%s", run.Console)
	}
	said := captureSaid(run)
	t.Logf("%s of QEMU; the capture kernel said\n%s", run.Duration.Round(time.Second), said)
	// The DHCP client of busybox sets no lifetime, so arm takes the address for a static one.
	if !strings.Contains(said, "eth0 has 10.0.2.15/24 by configuration") {
		t.Error("the capture kernel has not the address of the machine")
	}
	captureCheckEnd(t, said)
	store.checkCaptured(t)
}
