package lab

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"time"
)

// netbootInit is the init of a system that lives in memory: it configures the network, arms, and panics. Its last lines are for
// the host.
const netbootInit = `#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
exec > /dev/console 2>&1
modprobe virtio_pci
modprobe virtio_net
ifconfig eth0 up
udhcpc -q -i eth0 -s /dhcp.sh
corehaul-send arm
corehaul-send status
echo "lab: status ended with $?"
echo 5 > /proc/sys/kernel/panic
echo c > /proc/sysrq-trigger
`

// netbootDHCP is called by udhcpc.
const netbootDHCP = `#!/bin/sh
[ "$1" != bound ] || ifconfig "$interface" "$ip" netmask "$subnet"
`

// NetbootRoot fills dir with the system of a machine without a disk: a shell, the kernel and the modules of its network card. It
// arms when it has booted, with the corehaul-send of usr/bin, and panics.
func NetbootRoot(ctx context.Context, k *Kernel, dir string) error {
	programs, err := stockFiles(ctx)
	if err != nil {
		return err
	}
	modules := filepath.Join("lib/modules", k.Release)
	files := map[string]string{
		"bin/busybox": programs["/usr/bin/busybox"], "boot/vmlinuz-" + k.Release: k.Image,
	}
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		files[filepath.Join(modules, name)] = filepath.Join(k.ModulesDir, name)
	}
	deps, err := readModulesDep(filepath.Join(k.ModulesDir, "modules.dep"))
	if err != nil {
		return err
	}
	for _, name := range []string{"virtio_pci", "virtio_net"} {
		for _, file := range deps[name] {
			files[filepath.Join(modules, file)] = filepath.Join(k.ModulesDir, file)
		}
	}
	for name, from := range files {
		if err := copyProgram(filepath.Join(dir, name), from); err != nil {
			return err
		}
	}
	for _, name := range []string{"proc", "sys", "dev", "run", "tmp", "etc", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink("busybox", filepath.Join(dir, "bin/sh")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "init"), []byte(netbootInit), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "dhcp.sh"), []byte(netbootDHCP), 0o755); err != nil {
		return err
	}
	_, err = run(ctx, "", "depmod", "-b", dir, k.Release)
	return err
}

// copyProgram copies a file, which may be executed then.
func copyProgram(to, from string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // for errors; the other Close is checked
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// RunNetboot starts a machine without a disk. The iPXE of its network card fetches script, and what that names, from a directory by TFTP.
// It returns when QEMU ends, because a kernel reboots, or with ctx.
func RunNetboot(ctx context.Context, dir, script string) (*Run, error) {
	work, err := tempDir("netboot")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	m := &machine{scenario: Scenario{}.withDefaults(), dir: work, netdev: "user,tftp=" + dir + ",bootfile=" + script, netboot: true}
	start := time.Now()
	runErr := m.run(ctx)
	console, err := os.ReadFile(m.consolePath())
	if err != nil {
		return nil, err
	}
	return &Run{Console: string(console), Duration: time.Since(start)}, runErr
}
