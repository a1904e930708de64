package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A kernelSource says where a kernel of the lab comes from.
type kernelSource struct {
	name  string
	suite string
	arch  string
	// release matches uname -r in the package name linux-image-RELEASE.
	release *regexp.Regexp
}

var kernelSources = []kernelSource{
	// 5.10.0-32 is that of bullseye's last point release. Newer ones are security
	// updates whose debugging symbols are listed but gone from the archive.
	{"5.10", "bullseye", "amd64", regexp.MustCompile(`^5\.10\.0-32-cloud-amd64$`)},
	{"6.1", "bookworm", "amd64", regexp.MustCompile(`^6\.1\.0-\d+-cloud-amd64$`)},
	{"6.1-generic", "bookworm", "amd64", regexp.MustCompile(`^6\.1\.0-\d+-amd64$`)},
	// Another build than those: older sources, and PREEMPT_RT. It is that of bookworm's last point release, which stays in the archive.
	{"6.1-rt", "bookworm", "amd64", regexp.MustCompile(`^6\.1\.0-50-rt-amd64$`)},
	{"6.12", "trixie", "amd64", regexp.MustCompile(`^6\.12\.\d+\+deb13-cloud-amd64$`)},
	{"7.3", "trixie-backports", "amd64", regexp.MustCompile(`^7\.3\.\d+\+deb13-cloud-amd64$`)},
	{"6.1-arm64", "bookworm", "arm64", regexp.MustCompile(`^6\.1\.0-\d+-cloud-arm64$`)},
	{"6.12-arm64", "trixie", "arm64", regexp.MustCompile(`^6\.12\.\d+\+deb13-cloud-arm64$`)},
	// The one flavour with pages of 16 KiB; the newest of backports (7.3 when this was tried).
	{"backports-arm64-16k", "trixie-backports", "arm64", regexp.MustCompile(`^\d+\.\d+\.\d+\+deb13-arm64-16k$`)},
}

// KernelNames are the kernels of the lab.
func KernelNames() []string {
	var names []string
	for _, s := range kernelSources {
		names = append(names, s.name)
	}
	return names
}

func findSource(name string) (*kernelSource, error) {
	for i := range kernelSources {
		if kernelSources[i].name == name {
			return &kernelSources[i], nil
		}
	}
	return nil, fmt.Errorf("lab: %w: %q (there are %s)", ErrNoKernel, name, strings.Join(KernelNames(), ", "))
}

// A Kernel is an unpacked kernel package.
type Kernel struct {
	Name    string
	Arch    string // "amd64" or "arm64"
	Release string // as uname -r
	Image   string // path of the bootable image
	// ModulesDir is the directory of this release's modules, with
	// modules.dep: .../lib/modules/RELEASE.
	ModulesDir string

	source *kernelSource
}

// GetKernel returns a kernel from the cache. It fetches the kernel first if needed.
func GetKernel(ctx context.Context, name string) (*Kernel, error) {
	src, err := findSource(name)
	if err != nil {
		return nil, err
	}
	dir, err := cached(ctx, "kernels", name, func(dir string) error { return src.unpack(ctx, dir) })
	if err != nil {
		return nil, err
	}
	image, err := imageIn(dir)
	if err != nil {
		return nil, err
	}
	release := releaseOf(image)
	return &Kernel{
		Name:       name,
		Arch:       src.arch,
		Release:    release,
		Image:      image,
		ModulesDir: filepath.Join(dir, "lib", "modules", release),
		source:     src,
	}, nil
}

// imageIn finds the bootable image below dir: in boot, or since 7.2 beside the modules.
func imageIn(dir string) (string, error) {
	var images []string
	for _, place := range []string{"boot/vmlinuz-*", "lib/modules/*/vmlinuz"} {
		found, err := filepath.Glob(filepath.Join(dir, place))
		if err != nil {
			return "", err
		}
		images = append(images, found...)
	}
	if len(images) != 1 {
		return "", fmt.Errorf("lab: %s: %d kernel images: %w", dir, len(images), ErrNoKernel)
	}
	return images[0], nil
}

// releaseOf returns the release in the path of an image.
func releaseOf(image string) string {
	if release, ok := strings.CutPrefix(filepath.Base(image), "vmlinuz-"); ok {
		return release
	}
	return filepath.Base(filepath.Dir(image))
}

// unpack fetches the newest kernel of the source into dir.
func (s *kernelSource) unpack(ctx context.Context, dir string) error {
	apt, err := newApt(ctx, s.suite, s.arch)
	if err != nil {
		return err
	}
	release, err := s.newest(ctx, apt)
	if err != nil {
		return err
	}
	packages, err := imagePackages(ctx, apt, release)
	if err != nil {
		return err
	}
	if err := apt.fetch(ctx, dir, packages...); err != nil {
		return err
	}
	if merged := filepath.Join(dir, "usr", "lib", "modules"); isDir(merged) {
		if err := os.MkdirAll(filepath.Join(dir, "lib"), 0o755); err != nil {
			return err
		}
		if err := os.Rename(merged, filepath.Join(dir, "lib", "modules")); err != nil {
			return err
		}
	}
	if _, err := imageIn(dir); err != nil {
		return err
	}
	_, err = run(ctx, "", "depmod", "-b", dir, release)
	return err
}

// KernelPackages returns a directory with the packages of a kernel, and with linux-base, which runs the hooks for new kernels.
func KernelPackages(ctx context.Context, name string) (string, error) {
	k, err := GetKernel(ctx, name)
	if err != nil {
		return "", err
	}
	return cached(ctx, "kernelpackages", k.Release, func(dir string) error {
		apt, err := newApt(ctx, k.source.suite, k.Arch)
		if err != nil {
			return err
		}
		packages, err := imagePackages(ctx, apt, k.Release)
		if err != nil {
			return err
		}
		return apt.download(ctx, append(packages, "linux-base"), func(deb string) error { return repack(ctx, deb, dir) })
	})
}

// imagePackages lists the packages of a kernel. Up to 6.12 there is one. Since 7.0, linux-image is empty and depends on the
// others.
func imagePackages(ctx context.Context, apt *apt, release string) ([]string, error) {
	packages := []string{"linux-image-" + release}
	for _, part := range []string{"linux-base-", "linux-binary-", "linux-modules-"} {
		names, err := apt.pkgNames(ctx, part+release)
		if err != nil {
			return nil, err
		}
		if slices.Contains(names, part+release) {
			packages = append(packages, part+release)
		}
	}
	return packages, nil
}

// newest finds the newest release. On amd64, it also needs a package of debugging symbols
// for crash.
func (s *kernelSource) newest(ctx context.Context, apt *apt) (string, error) {
	const prefix, dbg = "linux-image-", "-dbg"
	names, err := apt.pkgNames(ctx, prefix)
	if err != nil {
		return "", err
	}
	var releases []string
	for _, n := range names {
		release := strings.TrimPrefix(n, prefix)
		if s.release.MatchString(release) && (s.arch != "amd64" || slices.Contains(names, n+dbg)) {
			releases = append(releases, release)
		}
	}
	if len(releases) == 0 {
		return "", fmt.Errorf("%w: no package for %s in %s", ErrNoKernel, s.name, s.suite)
	}
	return slices.MaxFunc(releases, compareReleases), nil
}

var digits = regexp.MustCompile(`\d+`)

// compareReleases orders releases by the numbers in them.
func compareReleases(a, b string) int { return slices.Compare(numbers(a), numbers(b)) }

func numbers(release string) []int {
	var ns []int
	for _, d := range digits.FindAllString(release, -1) {
		n, err := strconv.Atoi(d)
		if err != nil {
			n = 0
		}
		ns = append(ns, n)
	}
	return ns
}

// Vmlinux returns the path of the kernel's vmlinux with DWARF and, for x86_64, a .gdb_index. The first call fetches it
// (270 MiB, 570 MiB unpacked). The much larger symbols of modules are not unpacked.
func (k *Kernel) Vmlinux(ctx context.Context) (string, error) {
	file := "vmlinux-" + k.Release
	dir, err := cached(ctx, "debug", k.Release, func(dir string) error {
		apt, err := newApt(ctx, k.source.suite, k.Arch)
		if err != nil {
			return err
		}
		const boot = "usr/lib/debug/boot"
		if err := apt.fetchFile(ctx, dir, "linux-image-"+k.Release+"-dbg", filepath.Join(boot, file)); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(dir, boot, file), filepath.Join(dir, file)); err != nil {
			return err
		}
		return os.RemoveAll(filepath.Join(dir, "usr"))
	})
	if err != nil {
		return "", err
	}
	vmlinux := filepath.Join(dir, file)
	if k.Arch == "amd64" {
		err = addIndex(ctx, vmlinux, k.Release)
	}
	return vmlinux, err
}

// addIndex adds a .gdb_index to a vmlinux of the cache, as gdb-add-index does, once. The gdb in crash reads all of DWARF
// without it, at each start: 6.9 s of CPU time instead of 3.2 s (6.1).
func addIndex(ctx context.Context, vmlinux, release string) error {
	_, err := cached(ctx, "indexed", release, func(dir string) error {
		if _, err := run(ctx, dir, "gdb", "--nx", "--batch", "-iex", "set auto-load no", "-ex", "save gdb-index "+dir, vmlinux); err != nil {
			return err
		}
		index, with := filepath.Join(dir, filepath.Base(vmlinux)+".gdb-index"), vmlinux+".indexed"
		_, err := run(ctx, dir, "objcopy", "--add-section", ".gdb_index="+index, "--set-section-flags", ".gdb_index=readonly", vmlinux, with)
		if err != nil {
			return err
		}
		return errors.Join(os.Rename(with, vmlinux), os.Remove(index)) // a crash that runs keeps the old one
	})
	return err
}

// DebugModule returns a directory with the debugging information of one module, as packages have it: DIR/lib/modules/RELEASE/kernel/FILE.
// file is such as "drivers/block/virtio_blk.ko". path is that of the file.
func (k *Kernel) DebugModule(ctx context.Context, file string) (dir, path string, err error) {
	const debug = "usr/lib/debug"
	path = filepath.Join("lib", "modules", k.Release, "kernel", file)
	entry, err := cached(ctx, "debugmodules", k.Release+"-"+moduleName(file), func(dir string) error {
		apt, err := newApt(ctx, k.source.suite, k.Arch)
		if err != nil {
			return err
		}
		return apt.fetchFile(ctx, dir, "linux-image-"+k.Release+"-dbg", filepath.Join(debug, path))
	})
	dir = filepath.Join(entry, debug)
	return dir, filepath.Join(dir, path), err
}
