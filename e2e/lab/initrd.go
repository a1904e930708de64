package lab

import (
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// guestPackage is the program that is PID 1 of the guests.
const guestPackage = "github.com/corehaul/corehaul/e2e/lab/guest"

// buildGuest compiles the guest program for an architecture into dir. The working
// directory must be in the module, as in tests.
func buildGuest(ctx context.Context, dir, arch string) ([]byte, error) {
	out := filepath.Join(dir, "guest")
	_, err := run(ctx, "", "env", "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch,
		"go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, guestPackage)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

// writeInitrd writes an initramfs with the guest program as /init, its
// configuration, its modules and more files.
func writeInitrd(path string, init []byte, cfg guestcfg.Config, mods []module, files map[string]string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	c := &cpioWriter{w: f}
	// The kernel opens /dev/console before init mounts anything.
	c.dir("/dev")
	c.file("/init", init)
	for _, m := range mods {
		name := guestcfg.ModulesDir + "/" + m.name
		cfg.Modules = append(cfg.Modules, name)
		c.file(name, m.data)
	}
	b, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	c.file(guestcfg.Path, b)
	for _, name := range sortedKeys(files) {
		data, err := os.ReadFile(files[name])
		if err != nil {
			return err
		}
		c.file(name, data)
	}
	if err := c.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Close()
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// kexecFiles fetches kexec(8) for an architecture and returns it and the
// libraries that it needs, by their path in the guest.
func kexecFiles(ctx context.Context, arch string) (map[string]string, error) {
	dir, err := cached(ctx, "kexec", arch, func(dir string) error {
		apt, err := newApt(ctx, "bookworm", arch)
		if err != nil {
			return err
		}
		libs, err := apt.libraries(ctx, "kexec-tools")
		if err != nil {
			return err
		}
		return apt.fetch(ctx, dir, append(libs, "kexec-tools")...)
	})
	if err != nil {
		return nil, err
	}
	program := filepath.Join(dir, "sbin", "kexec")
	files := map[string]string{guestcfg.KexecPath: program}
	if err := addLibraries(files, guestcfg.KexecLibs, dir, program); err != nil {
		return nil, err
	}
	loaders, err := filepath.Glob(filepath.Join(dir, "lib", "*-linux-gnu", "ld-linux-*"))
	if err != nil || len(loaders) != 1 {
		return nil, fmt.Errorf("lab: %d dynamic loaders in %s: %w", len(loaders), dir, err)
	}
	files[guestcfg.KexecLoader] = loaders[0]
	return files, nil
}

// addLibraries adds the libraries of an ELF file under root, and their libraries, to a
// directory of the guest.
func addLibraries(files map[string]string, guestDir, root, path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	needed, err := f.ImportedLibraries()
	_ = f.Close()
	if err != nil {
		return err
	}
	for _, soname := range needed {
		inGuest := guestDir + "/" + soname
		if files[inGuest] != "" {
			continue
		}
		found, err := filepath.Glob(filepath.Join(root, "*lib", "*-linux-gnu", soname))
		if err == nil && len(found) == 0 {
			found, err = filepath.Glob(filepath.Join(root, "usr", "lib", "*-linux-gnu", soname))
		}
		if err != nil || len(found) == 0 {
			return fmt.Errorf("lab: %s needs %s, which is not in %s", path, soname, root)
		}
		files[inGuest] = found[0]
		if err := addLibraries(files, guestDir, root, found[0]); err != nil {
			return err
		}
	}
	return nil
}
