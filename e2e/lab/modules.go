package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A module is a kernel module file that the guest can load.
type module struct {
	name string // file name, NAME.ko
	data []byte
}

// modules reads the named modules and their dependencies, dependencies first. It leaves
// out modules that are built into the kernel.
func (k *Kernel) modules(ctx context.Context, names ...string) ([]module, error) {
	deps, err := readModulesDep(filepath.Join(k.ModulesDir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(k.ModulesDir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range names {
		if bytes.Contains(builtin, []byte("/"+name+".ko")) {
			continue
		}
		chain, ok := deps[name]
		if !ok {
			return nil, fmt.Errorf("lab: kernel %s has no module %s", k.Release, name)
		}
		// modules.dep lists the dependency that is loaded first last.
		for _, file := range slices.Backward(chain) {
			if !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	mods := make([]module, 0, len(files))
	for _, file := range files {
		m, err := readModule(ctx, filepath.Join(k.ModulesDir, file))
		if err != nil {
			return nil, err
		}
		mods = append(mods, m)
	}
	return mods, nil
}

// hasModule reports whether the kernel has a module of that name, as a file or built in.
func (k *Kernel) hasModule(name string) bool {
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		b, err := os.ReadFile(filepath.Join(k.ModulesDir, list))
		if err == nil && bytes.Contains(b, []byte("/"+name+".ko")) {
			return true
		}
	}
	return false
}

// readModulesDep maps a module's name to its file and those of its dependencies, in the
// order of depmod(8).
func readModulesDep(path string) (map[string][]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	deps := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		file, needs, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			return nil, fmt.Errorf("%s: line without a colon: %q", path, line)
		}
		deps[moduleName(file)] = append([]string{file}, strings.Fields(needs)...)
	}
	return deps, nil
}

// moduleName returns the module's name as the kernel spells it.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// readModule reads a module file and decompresses it.
func readModule(ctx context.Context, path string) (module, error) {
	name := moduleName(path) + ".ko"
	if strings.HasSuffix(path, ".xz") {
		out, err := run(ctx, "", "xz", "-dc", path)
		return module{name, []byte(out)}, err
	}
	b, err := os.ReadFile(path)
	return module{name, b}, err
}
