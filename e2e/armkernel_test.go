package e2e

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// secondKernel is a kernel of the lab that web-17 gets beside its own, of the next release of Debian.
const secondKernel = "6.12"

// installSecond installs it as an update of the system does: the maintainer scripts of the package run the hooks. There is no initramfs-tools,
// because the lab boots the guest. With all of its modules, depmod takes half a minute. The machine panics before
// the system would write the new files by itself.
const installSecond = `dpkg -i kernel/linux-base_*.deb
dpkg -i --force-depends --path-exclude='*/kernel/*' --path-include='*/kernel/drivers/virtio/*' --path-include='*/kernel/drivers/block/*' \
	--path-include='*/kernel/drivers/net/*' --path-include='*/kernel/drivers/char/*' --path-include='*/kernel/net/core/*' --path-include='*/kernel/net/packet/*' \
	--path-include='*/kernel/fs/ext4/*' --path-include='*/kernel/fs/jbd2/*' --path-include='*/kernel/fs/mbcache*' \
	--path-include='*/kernel/lib/*' --path-include='*/kernel/crypto/*' --path-include='*/kernel/arch/*' kernel/linux-image-*.deb
sync
`

// installKernel installs a second kernel on web-17, which is armed. Until it boots that, nothing changes, and status says so.
func (h *recipeHosts) installKernel(t *testing.T) {
	t.Helper()
	out := h.run(t, "web-17", installSecond)
	t.Logf("dpkg says\n%s", out)
	if strings.Contains(out, "will not be ready") {
		t.Error("the hook says that the machine cannot be armed with the second kernel")
	}
	h.checkArmed(t, "a second kernel is installed", "corehaul-send arm --if-changed | grep 'nothing to do'")
}

// checkArmed looks whether web-17 is ready, with an image of the kernel that runs, and returns the release of that.
func (h *recipeHosts) checkArmed(t *testing.T, name, script string) string {
	t.Helper()
	s := h.checkWrong(t, "web-17", wrongCase{name, script + "\nstatus_of", "0", nil})
	if s.Loaded == nil || s.Loaded.Kernel.Release != s.Kernel {
		t.Errorf("%s: the image is %+v, and %s runs", name, s.Loaded, s.Kernel)
	}
	return s.Kernel
}

// crash lets web-17 panic, and waits until its capture kernel has rebooted. It returns what that said.
func (h *recipeHosts) crash(t *testing.T) string {
	t.Helper()
	g, before := h.guests["web-17"], len(h.said())
	if out, code, err := g.Run("echo c > /proc/sysrq-trigger"); !errors.Is(err, io.EOF) {
		t.Fatalf("the machine is still there: exit code %d, %v\n%s", code, err, out)
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, h.said())
	}
	said := captureSaid(&lab.Run{Console: h.said()[before:]})
	t.Logf("the capture kernel said\n%s", said)
	return said
}

// crashAndReboot lets the machine panic, and boot the second kernel, as its boot loader would do now: it is armed then, with that kernel.
func (h *recipeHosts) crashAndReboot(t *testing.T) {
	t.Helper()
	h.crash(t)
	ctx, cancel := context.WithTimeout(t.Context(), recipeTimeout)
	t.Cleanup(cancel)
	if err := h.guests["web-17"].Restart(ctx, secondKernel); err != nil {
		t.Fatalf("%v\n%s", err, h.said())
	}
	runs := h.checkArmed(t, "after the reboot", "systemctl is-system-running --wait || true\nsystemctl is-active corehaul-arm")
	if !strings.HasPrefix(runs, secondKernel+".") {
		t.Errorf("%s runs, want %s", runs, secondKernel)
	}
}

// checkSecondDump lets the second kernel panic too.
func (h *recipeHosts) checkSecondDump(t *testing.T) {
	t.Helper()
	release := strings.TrimSpace(h.run(t, "web-17", "uname -r"))
	if said := h.crash(t); !strings.Contains(said, "corehaul-send: dump complete: ") || !strings.Contains(said, "Linux "+release) {
		t.Errorf("the capture kernel said nothing of a complete dump of %s", release)
	}
	out := h.run(t, "collector", "corehaul show web-17/latest\ncorehaul verify web-17/latest")
	t.Logf("the collector has\n%s", out)
	if !strings.Contains(out, release) || !strings.Contains(out, "no damage found") {
		t.Errorf("want a complete dump of %s", release)
	}
}
