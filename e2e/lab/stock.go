package lab

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// stockPrograms are the programs in a distribution's kdump initramfs, by package.
var stockPrograms = map[string][]string{
	"busybox-static": {"/usr/bin/busybox"},
	"makedumpfile":   {"/usr/bin/makedumpfile"},
	"kexec-tools":    {"/usr/sbin/vmcore-dmesg"},
	"openssh-client": {"/usr/bin/ssh", "/usr/bin/scp"},
}

// stockScript is the path of the caller's script in the initramfs.
const stockScript = "/kdump.sh"

// stockInit configures the network (QEMU's user networking gives this address to the first guest
// that asks) and runs the script. Its last line is for the host.
const stockInit = `#!/usr/bin/busybox sh
bb=/usr/bin/busybox
$bb mkdir -p /proc /sys /dev /tmp /bin
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
$bb --install -s /bin
for m in $(cat /modules.order); do insmod /modules/$m; done
chmod 700 /root /root/.ssh
chmod 600 /root/.ssh/*
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
sh ` + stockScript + `
echo "lab: kdump script ended with $?"
reboot -f
`

// StockInitrd writes the initramfs of a capture kernel like that of a distribution: a shell, and the
// makedumpfile, vmcore-dmesg and OpenSSH of Debian trixie, without corehaul. It runs script in busybox's
// shell. files are added by their absolute names. Those in /root/.ssh are closed to others.
func StockInitrd(ctx context.Context, k *Kernel, path, script string, files map[string]string) error {
	programs, err := stockFiles(ctx)
	if err != nil {
		return err
	}
	mods, err := k.modules(ctx, "virtio_pci", "virtio_net")
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // for errors; the other Close is checked
	c := &cpioWriter{w: f}
	c.dir("/dev")
	c.dir("/root/.ssh")
	for _, name := range sortedKeys(programs) {
		data, err := os.ReadFile(programs[name])
		if err != nil {
			return err
		}
		c.file(name, data)
	}
	var order strings.Builder
	for _, m := range mods {
		c.file("/modules/"+m.name, m.data)
		fmt.Fprintln(&order, m.name)
	}
	own := map[string]string{
		"/init": stockInit, stockScript: script, "/modules.order": order.String(),
		"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
	}
	maps.Copy(own, files)
	for _, name := range sortedKeys(own) {
		c.file(name, []byte(own[name]))
	}
	if err := c.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Close()
}

// Busybox returns the path of a busybox that is linked statically.
func Busybox(ctx context.Context) (string, error) {
	programs, err := stockFiles(ctx)
	return programs["/usr/bin/busybox"], err
}

// stockFiles fetches the programs and returns them and their libraries, by their path in the guest.
func stockFiles(ctx context.Context) (map[string]string, error) {
	dir, err := cached(ctx, "stock", "trixie-amd64", func(dir string) error {
		apt, err := newApt(ctx, "trixie", "amd64")
		if err != nil {
			return err
		}
		for name := range stockPrograms {
			libs, err := apt.libraries(ctx, name)
			if err != nil {
				return err
			}
			if err := apt.fetch(ctx, dir, append(libs, name)...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	a := libArch["amd64"]
	files := map[string]string{"/" + a.loader: filepath.Join(dir, "usr", a.loader)}
	for _, names := range stockPrograms {
		for _, name := range names {
			files[name] = filepath.Join(dir, name)
			if strings.HasSuffix(name, "/busybox") {
				continue // the program is static
			}
			if err := addLibraries(files, "/lib/"+a.dir, dir, files[name]); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// KdumpConfig fetches Debian trixie's kdump-tools and returns the path of its kdump-config(8).
func KdumpConfig(ctx context.Context) (string, error) {
	dir, err := cached(ctx, "stock", "kdump-tools-trixie", func(dir string) error {
		apt, err := newApt(ctx, "trixie", "amd64")
		if err != nil {
			return err
		}
		return apt.fetch(ctx, dir, "kdump-tools")
	})
	return filepath.Join(dir, "usr", "sbin", "kdump-config"), err
}
