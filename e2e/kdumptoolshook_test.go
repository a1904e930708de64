package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// installKdumpTools installs Debian's kdump beside corehaul-send, without its first image, for which an emulated machine takes a minute. The
// copy of kdump's sysctl.conf is that of a machine where kdump was loaded before. The line in fstab lets its system write to the root file system.
const installKdumpTools = `systemctl mask --runtime kdump-tools
cp kdump/config-* /boot
DEBIAN_FRONTEND=noninteractive dpkg -i kdump/*.deb
dpkg -i packages/corehaul-send_*.deb
systemctl unmask --runtime kdump-tools
systemctl enable kdump-tools
mkdir -p /var/lib/kdump
cp /etc/kdump/sysctl.conf /var/lib/kdump/latest_sysctls-$(uname -r)
echo '/dev/vda / ext4 defaults 0 0' > /etc/fstab
`

// askQEMU asks QEMU's network for an address, in place of that of the network in which the guest had booted.
const askQEMU = `systemctl stop systemd-networkd.socket systemd-networkd
rm -r /run/systemd/netif/leases
systemctl start systemd-networkd
/lib/systemd/systemd-networkd-wait-online --timeout=0
ip route get ` + lab.HostFromGuest + `
`

// TestKdumpToolsHook: a machine keeps Debian's kdump-tools, whose image has corehaul-send. While no receiver is there, kdump-tools saves the
// dump of a panic as without it. After the reboot, the machine is ready again by itself, and the receiver gets the dump of the next one.
func TestKdumpToolsHook(t *testing.T) {
	t.Parallel()
	store := judgesServe(t)
	address := store.address(t)
	store.end(t)
	h := newKdumpToolsHost(t, store.issue(t, captureHost))
	h.run(t, "web-17", askQEMU)
	t.Logf("the packages\n%s", recipeStart(h.run(t, "web-17", installKdumpTools)))
	h.run(t, "web-17", fmt.Sprintf(`umask 077
cp identity.pem /etc/corehaul-send.pem
cat > /etc/corehaul-send.toml <<'END'
to = ["tls://%s:%s"]
identity = "/etc/corehaul-send.pem"
patience = "10s"
END
`, lab.HostFromGuest, capturePort(t, address)))
	for _, r := range readRecipes(t, "docs/kdump-admin.md") {
		if strings.Join(r.words, " ") == "sh kdump-tools" {
			h.typeOn(t, "web-17", r)
		}
	}
	h.checkKdumpReady(t)
	h.checkKdumpHook(t)

	said := h.crash(t)
	for _, want := range []string{"corehaul-send: dump of web-17, Linux", "corehaul-send: dump failed: "} {
		if !strings.Contains(said, want) {
			t.Errorf("without a receiver, want %q", want)
		}
	}
	h.restart(t)
	if out := h.checkKdumpReady(t); !strings.Contains(out, "/dump.2") {
		t.Error("kdump-tools has not saved the dump that nobody took")
	}

	store.start(t)
	if said := h.crash(t); !strings.Contains(said, "corehaul-send: dump complete: ") {
		t.Error("with a receiver, want a complete dump")
	}
	store.checkCaptured(t)
}

// newKdumpToolsHost boots a machine that has the packages of kdump-tools and corehaul-send, and an identity, in its directory.
func newKdumpToolsHost(t *testing.T, identity string) *recipeHosts {
	t.Helper()
	dir := t.TempDir()
	kdump, err := lab.KdumpTools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{"kdump": kdump, "packages": "../bin/packages"} {
		if err := os.CopyFS(filepath.Join(dir, to), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	captureCommand(t, "cp", identity, filepath.Join(dir, "identity.pem"))
	ctx, cancel := context.WithTimeout(t.Context(), recipeTimeout)
	t.Cleanup(cancel)
	h := &recipeHosts{guests: map[string]*lab.Installed{}}
	g, err := lab.StartInstalled(ctx, lab.InstalledOptions{Name: "web-17", Dir: dir, OnLine: func(line string) { h.note("web-17", line) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Stop()
		if said := h.said(); t.Failed() {
			t.Logf("the console ends\n%s", said[max(0, len(said)-20000):])
		}
	})
	h.guests["web-17"] = g
	return h
}

// checkKdumpReady checks that the image of kdump-tools is loaded, and closed to all but root, and that no other image has corehaul-send. It
// returns what kdump-tools has saved so far.
func (h *recipeHosts) checkKdumpReady(t *testing.T) string {
	t.Helper()
	out := h.run(t, "web-17", `kdump-config status
stat -c '%a %s %n' /var/lib/kdump/initrd.img-$(uname -r)
find /var/crash -type f`)
	t.Logf("kdump-tools\n%s", out)
	if !strings.Contains(out, "ready to kdump") || !strings.Contains(out, "\n600 ") {
		t.Error("want kdump-tools to be ready, with an image that nobody else reads")
	}
	return out
}

// checkKdumpHook makes no image again, but runs the hook as mkinitramfs does: it puts nothing into the image of the system itself, and a
// wrong configuration costs no image of kdump.
func (h *recipeHosts) checkKdumpHook(t *testing.T) {
	t.Helper()
	out := h.run(t, "web-17", `export DESTDIR=/run/tree version=$(uname -r)
mkdir $DESTDIR
CONFDIR=/etc/initramfs-tools /usr/share/initramfs-tools/hooks/corehaul
ls $DESTDIR
sed -i.good s/tls:/tsl:/ /etc/corehaul-send.toml
CONFDIR=/var/lib/kdump/initramfs-tools /usr/share/initramfs-tools/hooks/corehaul
ls $DESTDIR
mv /etc/corehaul-send.toml.good /etc/corehaul-send.toml
`)
	t.Logf("the hook\n%s", out)
	if !strings.HasPrefix(out, "corehaul-send: /etc/corehaul-send.toml:1: to: ") || !strings.HasSuffix(out, "\ncorehaul: kdump-tools will save dumps as without corehaul-send\n") {
		t.Error("want two lines of a wrong configuration, and nothing in the trees")
	}
}

// restart boots the machine again after a panic.
func (h *recipeHosts) restart(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recipeTimeout)
	t.Cleanup(cancel)
	if err := h.guests["web-17"].Restart(ctx, "6.1"); err != nil {
		t.Fatalf("%v\n%s", err, h.said())
	}
	h.run(t, "web-17", "systemctl is-system-running --wait || true")
}
