package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// kdumpToolsPackages are what a machine with Debian's kdump installs.
var kdumpToolsPackages = []string{"kdump-tools", "makedumpfile", "initramfs-tools"}

// KdumpTools returns a directory with the packages that an installed guest lacks for Debian's kdump, and with the configuration of its kernel,
// config-RELEASE, without which mkinitramfs makes no image.
func KdumpTools(ctx context.Context) (string, error) {
	k, err := GetKernel(ctx, installedKernel)
	if err != nil {
		return "", err
	}
	image, err := installedImage(ctx, k)
	if err != nil {
		return "", err
	}
	return cached(ctx, "kdumptools", filepath.Base(image), func(dir string) error {
		config := "config-" + k.Release
		if err := copyFile(filepath.Join(filepath.Dir(k.Image), config), filepath.Join(dir, config)); err != nil {
			return err
		}
		return fetchMissing(ctx, k.Arch, image, dir, kdumpToolsPackages)
	})
}

// fetchMissing fetches packages for an installed system, and those that they need and that it does not have, into dir.
func fetchMissing(ctx context.Context, arch, image, dir string, packages []string) error {
	apt, err := newApt(ctx, "bookworm", arch)
	if err != nil {
		return err
	}
	work, err := tempDir("missing")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	has, err := run(ctx, "", "debugfs", "-R", "cat /var/lib/dpkg/status", filepath.Join(image, "root.ext4"))
	if err != nil {
		return err
	}
	if has == "" {
		return fmt.Errorf("lab: %s does not say which packages it has", image)
	}
	status, debs := filepath.Join(work, "status"), filepath.Join(work, "debs")
	if err := os.WriteFile(status, []byte(has), 0o600); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(debs, "partial"), 0o755); err != nil {
		return err
	}
	_, err = apt.run(ctx, "", append([]string{
		"apt-get", "-q", "-y", "--download-only", "--no-install-recommends",
		"-o", "Dir::State::status=" + status, "-o", "Dir::Cache::archives=" + debs, "install",
	}, packages...)...)
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(files) < len(packages) {
		return fmt.Errorf("lab: %d packages for %q: %w", len(files), packages, err)
	}
	for _, deb := range files {
		if err := repack(ctx, deb, dir); err != nil {
			return err
		}
	}
	return nil
}
