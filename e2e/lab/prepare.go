package lab

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// writeCaptureInitrd makes the initramfs whose init copies /proc/vmcore to a disk.
func writeCaptureInitrd(ctx context.Context, k *Kernel, work string) (string, error) {
	init, err := buildGuest(ctx, work, k.Arch)
	if err != nil {
		return "", err
	}
	mods, err := k.modules(ctx, "virtio_pci", "virtio_blk")
	if err != nil {
		return "", err
	}
	path := filepath.Join(work, "capture.img")
	return path, writeInitrd(path, init, guestcfg.Config{}, mods, nil)
}

// A bootPlan has the facts of a boot that are not in a scenario.
type bootPlan struct {
	captureInitrd string            // path
	ordered       bool              // captureInitrd and captureAppend come later, in an order
	captureAppend string            // added to the command line of the capture kernel
	records       bool              // see guestcfg.Config
	time          int64             // see guestcfg.Config
	modules       []module          // more modules for the system kernel
	files         map[string]string // more files of the system kernel, by path in the guest
}

// prepare makes a machine that crashes as the scenario says, and then boots the capture
// initramfs.
func prepare(ctx context.Context, s Scenario, k *Kernel, work string, plan bootPlan) (*machine, error) {
	init, err := buildGuest(ctx, work, k.Arch)
	if err != nil {
		return nil, err
	}
	mods, err := k.modules(ctx, systemModules(s, k)...)
	if err != nil {
		return nil, err
	}
	files := map[string]string{guestcfg.KernelPath: k.Image}
	if !plan.ordered {
		files[guestcfg.InitrdPath] = plan.captureInitrd
	}
	maps.Copy(files, plan.files)
	if s.Kexec == guestcfg.KexecLoad {
		kexec, err := kexecFiles(ctx, k.Arch)
		if err != nil {
			return nil, err
		}
		maps.Copy(files, kexec)
	}
	cfg := guestcfg.Config{
		Kexec:         s.Kexec,
		Ordered:       plan.ordered,
		CaptureAppend: plan.append(s),
		FixKallsyms:   s.arm64(),
		Busy:          s.Busy,
		Records:       plan.records,
		Time:          plan.time,
		Crash:         s.Crash,
		Nodename:      s.Nodename,
		CrashCPU:      s.CrashCPU,
	}
	m := &machine{scenario: s, kernel: k, dir: work, initrd: filepath.Join(work, "system.img")}
	if err := writeInitrd(m.initrd, init, cfg, append(mods, plan.modules...), files); err != nil {
		return nil, err
	}
	if s.Busy {
		return m, m.addFilesDisk(ctx)
	}
	return m, nil
}

// systemModules lists the modules that the system kernel needs.
func systemModules(s Scenario, k *Kernel) []string {
	names := []string{"virtio_pci", "virtio_blk", "virtio_net"}
	if s.Busy {
		names = append(names, "virtio_balloon")
		// The generic flavour has ext4 as a module, which asks for crc32c by alias. Later kernels
		// have no such module, because ext4 calls the library.
		if k.hasModule("crc32c_generic") {
			names = append(names, "crc32c_generic")
		}
		names = append(names, "ext4")
	}
	return names
}

// addFilesDisk makes an empty ext4 file system, as large as the memory.
func (m *machine) addFilesDisk(ctx context.Context) error {
	path := filepath.Join(m.dir, "files.img")
	if err := makeSparse(path, int64(m.scenario.MemMiB)<<20); err != nil {
		return err
	}
	if _, err := run(ctx, "", "mkfs.ext4", "-q", "-F", path); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	m.disks = append(m.disks, disk{serial: guestcfg.DiskFiles, path: path})
	return nil
}
