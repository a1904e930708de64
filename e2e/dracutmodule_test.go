package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// dracutScript makes an image with Debian's dracut, on this machine with the package corehaul-send on top, as Red Hat's mkdumprd does. The stand-in
// for its kdump.sh runs what is in /etc/kdump/pre.d, whatever comes of it (kdump-utils: dracut/99kdumpbase/kdump.sh, do_kdump_pre), with the
// output on the console, as its journald has it, and never saves a dump.
const dracutScript = `
set -eu
cd "$DIR"
mkdir up work root
mount -t overlay overlay -o lowerdir=/,upperdir=up,workdir=work root
dpkg-deb --fsys-tarfile "$DEB" | tar -x -C root --keep-directory-symlink
cp send.toml root/etc/corehaul-send.toml
cp identity.pem root/etc/corehaul-send.pem
mkdir -p "root/lib/modules/$RELEASE"
mount --bind "$MODULES" "root/lib/modules/$RELEASE"
for d in proc sys dev; do mount --rbind "/$d" "root/$d"; done
mount -t tmpfs tmpfs root/run
cat > root/run/kdump.sh <<'END'
for file in /etc/kdump/pre.d/*; do "$file" > /dev/console 2>&1; done
echo "kdump: saving vmcore"
reboot -f
END
cat > root/run/make.sh <<'END'
set -e
IN_KDUMP=1 dracut --force --no-kernel --no-hostonly --no-early-microcode --kver "$RELEASE" \
	--include /run/kdump.sh /lib/dracut/hooks/cmdline/01-kdump.sh /run/kdump.img
. /usr/lib/dracut/modules.d/98corehaul/module-setup.sh
dracutmodules="base systemd"
if check; then exit 1; fi
force_add_dracutmodules="kdump"
check
END
chroot root bash /run/make.sh
cp root/run/kdump.img .
`

// TestDracutModule lets a machine panic whose capture kernel has an image of dracut with the package's module.
func TestDracutModule(t *testing.T) {
	t.Parallel()
	store := judgesServe(t)
	k, err := lab.GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	debs, err := filepath.Glob("../bin/packages/corehaul-send_*.deb")
	if err != nil || len(debs) != 1 {
		t.Fatalf("%q, %v: want one package", debs, err)
	}
	deb, err := filepath.Abs(debs[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	captureCommand(t, "cp", store.issue(t, captureHost), filepath.Join(dir, "identity.pem"))
	settings := fmt.Sprintf("to = [\"tls://%s:%s\"]\nidentity = \"corehaul-send.pem\"\nmodules = [\"virtio_net\"]\n[network]\nmode = \"dhcp\"\n",
		lab.HostFromGuest, capturePort(t, store.address(t)))
	if err := os.WriteFile(filepath.Join(dir, "send.toml"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-c", dracutScript)
	cmd.Env = append(os.Environ(), "DIR="+dir, "DEB="+deb, "RELEASE="+k.Release, "MODULES="+k.ModulesDir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "corehaul") {
			t.Logf("dracut says: %s", line)
		}
	}
	image := filepath.Join(dir, "kdump.img")
	if st, err := os.Stat(image); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the image, which has a key: %v, %v", st.Mode(), err)
	}
	said := captureRun(t, lab.Scenario{Kernel: "6.1"}, image, lab.SenderOptions{})
	captureCheckConsole(t, said)
	store.checkCaptured(t)
}
