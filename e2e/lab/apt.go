package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// keyring holds the keys of every Debian suite that the lab fetches from.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// An apt has its own package lists of one suite and architecture.
type apt struct {
	dir  string
	arch string
}

// newApt makes or opens the lists of a suite, for example "trixie", for a Debian
// architecture. Lists are fetched once, and never again for the same cache.
func newApt(ctx context.Context, suite, arch string) (*apt, error) {
	return newAptOf(ctx, suite, "main", suite+"-"+arch, arch)
}

// newAptOf is newApt for a component of the suite, under a name in the cache.
func newAptOf(ctx context.Context, suite, component, name, arch string) (*apt, error) {
	dir, err := cached(ctx, "apt", name, func(dir string) error {
		for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
			if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
				return err
			}
		}
		if err := writeSources(ctx, dir, suite, component); err != nil {
			return err
		}
		_, err := (&apt{dir, arch}).run(ctx, "", "apt-get", "-q", "update")
		return err
	})
	if err != nil {
		return nil, err
	}
	return &apt{dir, arch}, nil
}

// writeSources writes a sources.list of a component of the suite and its security updates, on
// the mirrors that the machine itself uses.
func writeSources(ctx context.Context, dir, suite, component string) error {
	main, err := mirror(ctx, "Debian")
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "deb [signed-by=%s] %s %s %s\n", keyring, main, suite, component)
	if !strings.HasSuffix(suite, "-backports") { // backports have no security updates
		security, err := mirror(ctx, "Debian-Security")
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "deb [signed-by=%s] %s %s-security %s\n", keyring, security, suite, component)
	}
	return os.WriteFile(filepath.Join(dir, "sources.list"), []byte(b.String()), 0o644)
}

// mirror finds the mirror from which the machine's apt gets the archive with a label.
func mirror(ctx context.Context, label string) (string, error) {
	out, err := run(ctx, "", "apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Identifier: Packages")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if l, uri, ok := strings.Cut(strings.TrimSpace(line), " "); ok && l == label {
			return uri, nil
		}
	}
	return "", fmt.Errorf("apt sources name no archive labelled %s (has apt-get update been run?)", label)
}

func (a *apt) run(ctx context.Context, cwd string, command ...string) (string, error) {
	opts := []string{
		"Dir::Etc::sourcelist=" + filepath.Join(a.dir, "sources.list"),
		"Dir::Etc::sourceparts=/dev/null",
		"Dir::State::Lists=" + filepath.Join(a.dir, "lists"),
		"Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"APT::Architecture=" + a.arch,
		// Root downloads into the lab's directories, which _apt may not enter.
		"APT::Sandbox::User=root",
	}
	args := []string{}
	for _, o := range opts {
		args = append(args, "-o", o)
	}
	return run(ctx, cwd, command[0], append(args, command[1:]...)...)
}

// pkgNames lists the package names that begin with prefix.
func (a *apt) pkgNames(ctx context.Context, prefix string) ([]string, error) {
	out, err := a.run(ctx, "", "apt-cache", "pkgnames", prefix)
	return strings.Fields(out), err
}

// libraries lists the library packages that pkg needs, directly or not.
func (a *apt) libraries(ctx context.Context, pkg string) ([]string, error) {
	out, err := a.run(ctx, "", "apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests",
		"--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", pkg)
	if err != nil {
		return nil, err
	}
	var libs []string
	for line := range strings.Lines(out) {
		name := strings.TrimSpace(line)
		// Unindented lines name the packages themselves. Only maintainer scripts
		// need perl and debconf, and they do not run.
		isLibrary := strings.HasPrefix(name, "lib") || strings.HasPrefix(name, "zlib")
		if !strings.HasPrefix(line, " ") && isLibrary && !strings.Contains(name, "perl") {
			libs = append(libs, name)
		}
	}
	return libs, nil
}

// fetch downloads packages (NAME or NAME=VERSION) and unpacks them into dir.
// Their maintainer scripts do not run.
func (a *apt) fetch(ctx context.Context, dir string, packages ...string) error {
	return a.download(ctx, packages, func(deb string) error {
		_, err := run(ctx, "", "dpkg", "-x", deb, dir)
		return err
	})
}

// fetchFile downloads a package and unpacks one file of it, a path without a leading slash, into dir. It does not
// decompress the rest of the package, which may have gigabytes.
func (a *apt) fetchFile(ctx context.Context, dir, pkg, file string) error {
	return a.download(ctx, []string{pkg}, func(deb string) error {
		all := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
		out, err := all.StdoutPipe()
		if err != nil {
			return err
		}
		if err := all.Start(); err != nil {
			return err
		}
		one := exec.CommandContext(ctx, "tar", "-x", "-C", dir, "--occurrence=1", "./"+file)
		one.Stdin = out
		text, err := one.CombinedOutput()
		_, _ = out.Close(), all.Wait() // tar stops reading after its file, so the pipe breaks
		if err != nil {
			return fmt.Errorf("lab: %s of %s: %w: %s", file, pkg, err, tail(string(text), 5))
		}
		return nil
	})
}

// download downloads packages and calls use for each, before it removes their files.
func (a *apt) download(ctx context.Context, packages []string, use func(deb string) error) error {
	debs, err := tempDir("debs")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(debs) }()
	if _, err := a.run(ctx, debs, append([]string{"apt-get", "-q", "download"}, packages...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("apt-get download gave no packages")
	}
	for _, deb := range files {
		if err := use(deb); err != nil {
			return err
		}
	}
	return nil
}

// repack copies a package into dir, packed without compression: an emulated machine takes 15 s of CPU time to decompress a kernel.
func repack(ctx context.Context, deb, dir string) error {
	files := filepath.Join(dir, "files")
	if _, err := run(ctx, "", "dpkg-deb", "--raw-extract", deb, files); err != nil {
		return err
	}
	if _, err := run(ctx, "", "dpkg-deb", "--root-owner-group", "-Znone", "--build", files, filepath.Join(dir, filepath.Base(deb))); err != nil {
		return err
	}
	return os.RemoveAll(files)
}
