package lab

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// crashmodSource is a kernel module that crashes, and a live patch for it.
//
//go:embed crashmod
var crashmodSource embed.FS

// crashmod builds the module for a kernel, in the directory work. That takes few seconds. patch is the path of the live patch.
func (k *Kernel) crashmod(ctx context.Context, work string) (crashmod module, patch string, err error) {
	headers, err := k.headers(ctx)
	if err != nil {
		return module{}, "", err
	}
	if err := os.CopyFS(work, crashmodSource); err != nil {
		return module{}, "", err
	}
	dir := filepath.Join(work, "crashmod")
	src := filepath.Join(headers, "usr", "src")
	objects := filepath.Join(src, "linux-headers-"+k.Release)
	makefiles, err := filepath.Glob(filepath.Join(src, "linux-headers-*-common*", "Makefile"))
	if err != nil || len(makefiles) != 1 {
		return module{}, "", fmt.Errorf("lab: %d Makefiles of a kernel in %s: %w", len(makefiles), src, err)
	}
	_, err = run(ctx, "", "make", "-C", objects, "-f", makefiles[0], "KBUILD_OUTPUT="+objects, "M="+dir,
		// The compiler of Debian 12, whichever the kernel was built with. It lacks one option of gcc 14, for the alignment
		// of functions, which kernels use since 6.9.
		"CC=gcc-12", "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=", "modules")
	if err != nil {
		return module{}, "", err
	}
	crashmod, err = readModule(ctx, filepath.Join(dir, "crashmod.ko"))
	return crashmod, filepath.Join(dir, "crashpatch.ko"), err
}

// headers fetches the kernel's headers, and the programs that build modules.
func (k *Kernel) headers(ctx context.Context) (string, error) {
	return cached(ctx, "headers", k.Release, func(dir string) error {
		apt, err := newApt(ctx, k.source.suite, k.Arch)
		if err != nil {
			return err
		}
		packages, err := apt.headerPackages(ctx, k.Release)
		if err != nil {
			return err
		}
		if err := apt.fetch(ctx, dir, packages...); err != nil {
			return err
		}
		// If there is a vmlinux, the build asks for pahole, to add types to the module.
		if err := os.RemoveAll(filepath.Join(dir, "usr", "src", "linux-headers-"+k.Release, "vmlinux")); err != nil {
			return err
		}
		if !strings.HasPrefix(k.source.suite, newestLibc) {
			return nil
		}
		return wrapPrograms(ctx, filepath.Join(dir, "usr", "lib"))
	})
}

// headerPackages lists the packages that it takes to build modules for a release: its headers, those that its flavours share,
// and programs.
func (a *apt) headerPackages(ctx context.Context, release string) ([]string, error) {
	headers := "linux-headers-" + release
	out, err := a.run(ctx, "", "apt-cache", "depends", headers)
	if err != nil {
		return nil, err
	}
	packages := []string{headers}
	for _, word := range strings.Fields(out) {
		// The flavour rt has a patched tree of its own, -common-rt.
		shared := strings.HasPrefix(word, "linux-headers-") && strings.Contains(word, "-common")
		if shared || strings.HasPrefix(word, "linux-kbuild-") {
			packages = append(packages, word)
		}
	}
	return packages, nil
}

// newestLibc is the suite whose C library runs the programs of all suites of the lab. Programs of that suite and its backports
// need it.
const newestLibc = "trixie"

// wrapPrograms puts a script in place of each program below dir that needs a newer C library than the machine may have. These
// are the programs for one kind of target, such as modpost.real-lsb-64. Small programs call them, which run everywhere.
func wrapPrograms(ctx context.Context, dir string) error {
	libs, err := cached(ctx, "headers", newestLibc+"-libraries", func(dir string) error {
		apt, err := newApt(ctx, newestLibc, "amd64")
		if err != nil {
			return err
		}
		return apt.fetch(ctx, dir, "libc6", "libelf1t64", "zlib1g", "libzstd1")
	})
	if err != nil {
		return err
	}
	lib := filepath.Join(libs, "usr", "lib", libArch["amd64"].dir)
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || !strings.Contains(e.Name(), ".real-") {
			return err
		}
		if err := os.Rename(path, path+".elf"); err != nil {
			return err
		}
		// The directory will be renamed, so the script may not name it.
		script := fmt.Sprintf("#!/bin/sh\nexec %s/ld-linux-x86-64.so.2 --library-path %s \"$0.elf\" \"$@\"\n", lib, lib)
		return os.WriteFile(path, []byte(script), 0o755)
	})
}
