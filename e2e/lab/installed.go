package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// installedPackages are the packages of an installed guest beside Debian's smallest system.
const installedPackages = "systemd-sysv,udev,kmod,iproute2,kexec-tools,openssh-server,dnsmasq-base,busybox-static"

// Sizes of the disks in bytes. The images are sparse.
const (
	installedSize    = 4 << 30
	installedDirSize = 1 << 30
)

// installedFiles are for the network and a shell for the host. The guest called collector runs the DHCP and name
// server of its network.
var installedFiles = map[string]string{
	"/etc/machine-id":  "8d6a8f3d0f5a4c0f8f0d5c2f7b1c9e31\n",
	"/etc/resolv.conf": "nameserver " + CollectorAddress + "\n",
	"/etc/systemd/network/10-collector.network": "[Match]\nHost=collector\nType=ether\n" +
		"[Network]\nAddress=" + CollectorAddress + "/24\n",
	"/etc/systemd/network/20-others.network": "[Match]\nType=ether\n[Network]\nDHCP=ipv4\n",
	// An emulated machine on a busy host is slow, and tests have their own limits.
	"/etc/systemd/system.conf.d/lab.conf": "[Manager]\nDefaultTimeoutStartSec=1h\nDefaultDeviceTimeoutSec=1h\n",
	"/etc/systemd/system/systemd-networkd-wait-online.service.d/lab.conf": "[Service]\nExecStart=\n" +
		"ExecStart=/lib/systemd/systemd-networkd-wait-online --timeout=0\n",
	"/etc/systemd/system/lab-names.service": `[Unit]
ConditionHost=collector
Wants=network-online.target
After=network-online.target
[Service]
ExecStart=/usr/sbin/dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --no-resolv --no-hosts --no-daemon \
	--address=/` + CollectorName + `/` + CollectorAddress + ` --dhcp-range=192.0.2.50,192.0.2.99 --dhcp-leasefile=/run/leases
`,
	"/etc/systemd/system/lab-shell.service": `[Unit]
Requires=dev-virtio\x2dports-lab.device
Wants=network-online.target
After=dev-virtio\x2dports-lab.device network-online.target lab-names.service
[Service]
Environment=HOME=/root
WorkingDirectory=` + InstalledDir + `
ExecStart=/bin/bash -c 'exec 3<>/dev/virtio-ports/lab; echo "` + shellReady + `" >&3; exec bash --noprofile --norc <&3 >&3 2>&3'
`,
}

// installedUnits lists the units that are started at boot, by target.
var installedUnits = map[string]string{
	"systemd-networkd.service":             "multi-user.target",
	"systemd-networkd-wait-online.service": "network-online.target",
	"lab-names.service":                    "multi-user.target",
	"lab-shell.service":                    "multi-user.target",
}

// installedMasked takes a quarter of the time of a boot, or does at the first one what is due once a day. No test asks for it.
var installedMasked = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
	"getty@tty1.service", "getty-static.service", "serial-getty@ttyS0.service",
	"dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
	"modprobe@configfs.service", "modprobe@dm_mod.service", "modprobe@drm.service", "modprobe@efi_pstore.service",
	"modprobe@fuse.service", "modprobe@loop.service",
	"systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
}

// installedInit mounts the first disk and starts systemd.
const installedInit = `#!/busybox sh
/busybox mkdir -p /proc /root
/busybox mount -t proc proc /proc
/busybox mount -t devtmpfs dev /dev
for m in $(/busybox cat /modules.order); do /busybox insmod /modules/$m; done
/busybox mount -t ext4 /dev/vda /root
/busybox umount /proc
exec /busybox switch_root /root /sbin/init
`

// installedImage makes the disk of an installed Debian bookworm with systemd and this kernel, or takes it from the
// cache, and returns its directory: root.ext4, and busybox for an initramfs.
func installedImage(ctx context.Context, k *Kernel) (string, error) {
	h := sha256.New()
	_, _ = fmt.Fprintln(h, installedPackages, installedSize, installedFiles, installedUnits) // maps are printed in the order of their keys
	name := k.Release + "-" + hex.EncodeToString(h.Sum(nil))[:12]
	return cached(ctx, "installed", name, func(dir string) error {
		apt, err := newApt(ctx, "bookworm", k.Arch)
		if err != nil {
			return err
		}
		root := filepath.Join(dir, "root")
		if _, err := run(ctx, "", "mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=minbase",
			"--include="+installedPackages, "bookworm", root, filepath.Join(apt.dir, "sources.list")); err != nil {
			return err
		}
		if err := furnish(ctx, root, k); err != nil {
			return err
		}
		if err := copyFile(filepath.Join(root, "bin", "busybox"), filepath.Join(dir, "busybox")); err != nil {
			return err
		}
		if err := makeExt4(ctx, filepath.Join(dir, "root.ext4"), root, installedSize); err != nil {
			return err
		}
		return os.RemoveAll(root)
	})
}

// furnish adds the kernel and the lab's files to an installed system.
func furnish(ctx context.Context, root string, k *Kernel) error {
	for name, text := range installedFiles {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		// Some are links to files that do not exist yet.
		if err := os.RemoveAll(file); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for unit, target := range installedUnits {
		wants := filepath.Join(root, "etc/systemd/system", target+".wants")
		if err := os.MkdirAll(wants, 0o755); err != nil {
			return err
		}
		at := choose(strings.HasPrefix(unit, "lab-"), "/etc/systemd/system/", "/lib/systemd/system/")
		if err := os.Symlink(at+unit, filepath.Join(wants, unit)); err != nil {
			return err
		}
	}
	for _, dir := range []string{InstalledDir, "/boot", "/lib/modules"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(k.Image, filepath.Join(root, "boot", filepath.Base(k.Image))); err != nil {
		return err
	}
	_, err := run(ctx, "", "cp", "-a", k.ModulesDir, filepath.Join(root, "lib/modules"))
	return err
}

// makeExt4 makes the image of a file system with the contents of a directory.
func makeExt4(ctx context.Context, image, dir string, size int64) error {
	if err := makeSparse(image, size); err != nil {
		return err
	}
	_, err := run(ctx, "", "mkfs.ext4", "-q", "-F", "-d", dir, image)
	return err
}

// makeOverlay makes a qcow2 image that has what is written to it, and all else of a raw image.
func makeOverlay(ctx context.Context, overlay, image string) error {
	_, err := run(ctx, "", "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image, overlay)
	return err
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// writeInstalledInitrd makes the initramfs that starts the installed system.
func writeInstalledInitrd(ctx context.Context, k *Kernel, busybox, file string) error {
	mods, err := k.modules(ctx, "virtio_pci", "virtio_blk", "ext4")
	if err != nil {
		return err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // for errors; the other Close is checked
	c := &cpioWriter{w: f}
	c.dir("/dev")
	c.file("/busybox", program)
	c.file("/init", []byte(installedInit))
	var order strings.Builder
	for _, m := range mods {
		c.file("/modules/"+m.name, m.data)
		_, _ = fmt.Fprintln(&order, m.name)
	}
	c.file("/modules.order", []byte(order.String()))
	if err := c.Close(); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return f.Close()
}
