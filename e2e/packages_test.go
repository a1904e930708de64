package e2e

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// packagesRun runs a program that is expected to succeed, and returns what it prints.
func packagesRun(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// packagesIn returns the paths of the packages in a directory, and the hash of each by its name.
func packagesIn(t *testing.T, dir string) (paths []string, hashes map[string]string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	hashes = map[string]string{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		hashes[filepath.Base(path)] = fmt.Sprintf("%x", sha256.Sum256(b))
	}
	return paths, hashes
}

// packagesFiles has files that the packages are to hold, in either format.
var packagesFiles = map[string][]string{
	"corehaul": {
		"usr/bin/corehaul", "lib/systemd/system/corehaul.service", "usr/lib/sysusers.d/corehaul.conf", "etc/corehaul/serve.toml",
		"usr/share/man/man1/corehaul-serve.1.gz", "usr/share/bash-completion/completions/corehaul", "usr/share/doc/corehaul/operating.md",
	},
	"corehaul-send": {
		"usr/bin/corehaul-send", "lib/systemd/system/corehaul-arm.service", "lib/systemd/system/corehaul-rearm.path",
		"lib/udev/rules.d/98-corehaul-arm.rules", "usr/lib/dracut/modules.d/98corehaul/module-setup.sh", "usr/share/corehaul-send/kdump-capture",
		"usr/share/man/man1/corehaul-send-arm.1.gz", "usr/share/doc/corehaul-send/machine.md",
	},
}

// The packages are the same in every build, have no error in the eyes of their distributions, and put the files where they belong.
func TestPackages(t *testing.T) {
	t.Parallel()
	paths, hashes := packagesIn(t, "../bin/packages")
	if len(paths) != 4 {
		t.Fatalf("make packages has left %v", slices.Sorted(maps.Keys(hashes)))
	}
	again := t.TempDir()
	packagesRun(t, "../packaging/build.sh", again)
	if _, second := packagesIn(t, again); !maps.Equal(hashes, second) {
		t.Errorf("two builds give %v and %v", hashes, second)
	}
	root := t.TempDir()
	packagesRun(t, "rpm", "--root", root, "--initdb")
	var debs, rpms []string
	for _, path := range paths {
		if filepath.Ext(path) == ".deb" {
			debs = append(debs, path)
			packagesRun(t, "dpkg-deb", "--extract", path, filepath.Join(root, "deb"))
		} else {
			rpms = append(rpms, path)
		}
	}
	// Debian has no systemd in rpm's database, and the scripts are for a system that runs.
	packagesRun(t, "rpm", append([]string{"--root", root, "--install", "--nodeps", "--noscripts"}, rpms...)...)
	for name, files := range packagesFiles {
		for _, file := range files {
			packagesHave(t, name, filepath.Join(root, "deb"), file)
			packagesHave(t, name, root, packagesInRPM(file))
		}
	}
	packagesHave(t, "corehaul-send", filepath.Join(root, "deb"), "etc/kernel/postinst.d/zz-corehaul")
	packagesHave(t, "corehaul-send", root, "usr/lib/kernel/install.d/90-corehaul.install")
	packagesRun(t, "lintian", append([]string{"--allow-root", "--fail-on", "error"}, debs...)...)
	packagesRPMLint(t, rpms)
	pages, err := filepath.Glob(filepath.Join(root, "deb/usr/share/man/man1/*"))
	if err != nil || len(pages) < 40 {
		t.Fatalf("%d manual pages: %v", len(pages), err)
	}
	packagesRun(t, "gzip", append([]string{"--decompress"}, pages...)...)
	for i := range pages {
		pages[i] = strings.TrimSuffix(pages[i], ".gz")
	}
	packagesRun(t, "mandoc", append([]string{"-Tlint", "-W", "error"}, pages...)...)
}

// packagesRPMLint has rpmlint look at packages. It unpacks them with a cpio that takes absolute names as they are, into this machine.
func packagesRPMLint(t *testing.T, rpms []string) {
	t.Helper()
	bin := t.TempDir()
	const cpio = "#!/bin/sh\nexec /usr/bin/cpio --no-absolute-filenames \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "cpio"), []byte(cpio), 0o700); err != nil {
		t.Fatal(err)
	}
	packagesRun(t, "env", append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "rpmlint", "--config", "../packaging/rpmlint.toml"}, rpms...)...)
	if _, err := os.Stat("/usr/share/doc/corehaul-send/machine.md"); err == nil {
		t.Error("rpmlint has unpacked the packages into this machine")
	}
}

// packagesHave looks for a file of a package.
func packagesHave(t *testing.T, name, root, file string) {
	t.Helper()
	if info, err := os.Stat(filepath.Join(root, file)); err != nil || info.Size() == 0 {
		t.Errorf("%s: no %s: %v", name, file, err)
	}
}

// packagesInRPM is where an .rpm has a file of a .deb: what Debian 12 keeps in /lib is in /usr/lib.
func packagesInRPM(file string) string {
	if rest, ok := strings.CutPrefix(file, "lib/"); ok {
		return "usr/lib/" + rest
	}
	return file
}
