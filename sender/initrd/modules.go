package initrd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
	"golang.org/x/sys/unix"
)

// Limits of depmod's indexes. Debian's generic 6.1 kernel has 4,000 modules and a modules.dep of 600 KiB.
const (
	maxIndexFile = 64 << 20
	maxIndexLine = 1 << 20
)

// A Tree has depmod's indexes of one kernel's modules, /lib/modules/VERSION.
type Tree struct {
	dir     string
	release string
	// modules maps a canonical name to the path below dir and all dependencies, direct or not.
	modules map[string]depEntry
	// builtin maps modules in the kernel image to their paths.
	builtin map[string]string
	// aliases maps a plain alias to all modules that have it.
	aliases map[string][]string
	// buses maps a module to the buses of its aliases.
	buses map[string][]string
	soft  map[string]softDeps
}

type depEntry struct {
	path string
	deps []string
}

type softDeps struct{ pre, post []string }

// A Module is one module to load.
type Module struct {
	// Name is canonical: with underscores, without .ko.
	Name string
	// Path lies below the tree's directory and keeps its compression suffix.
	Path string
	// Params are handed to the kernel with the module.
	Params string
}

// ModuleError says why a module cannot be packed.
type ModuleError struct {
	Module string
	// Near lists known modules of a similar name.
	Near []string
	Err  error
}

// Error names the module and those of a similar name.
func (e *ModuleError) Error() string {
	s := fmt.Sprintf("module %s: %v", e.Module, e.Err)
	if len(e.Near) > 0 {
		s += " (there is " + strings.Join(e.Near, ", ") + ")"
	}
	return s
}

// Unwrap returns the reason.
func (e *ModuleError) Unwrap() error { return e.Err }

// Reasons inside a ModuleError.
var (
	// ErrUnknownModule means that neither modules.dep nor modules.builtin has the module.
	ErrUnknownModule = errors.New("unknown to the kernel")
	// ErrModuleCycle means that a module depends on itself, directly or not.
	ErrModuleCycle = errors.New("depends on itself")
)

// OpenTree reads the indexes of dir, which is /lib/modules/VERSION or a copy of it.
func OpenTree(dir string) (*Tree, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	t := &Tree{
		dir: abs, release: filepath.Base(abs),
		modules: map[string]depEntry{}, builtin: map[string]string{},
		aliases: map[string][]string{}, buses: map[string][]string{}, soft: map[string]softDeps{},
	}
	if err := eachLine(abs, "modules.dep", t.addDep); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil, &TreeError{Dir: dir, Near: treesNear(abs), Err: err}
		}
		return nil, err
	}
	for _, index := range []struct {
		name string
		add  func(string) error
	}{
		{"modules.builtin", t.addBuiltin},
		{"modules.alias", t.addAlias},
		{"modules.softdep", t.addSoftdep},
		{"modules.weakdep", t.addWeakdep},
	} {
		if err := eachLine(abs, index.name, index.add); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return t, t.addBuiltinAliases()
}

// Builtin reports whether the module is part of the kernel image.
func (t *Tree) Builtin(name string) bool { return t.builtin[CanonicalName(name)] != "" }

func (t *Tree) addDep(line string) error {
	file, deps, ok := strings.Cut(line, ":")
	if !ok {
		return errors.New("no colon after the module's path")
	}
	e := depEntry{path: file}
	for _, d := range append([]string{file}, strings.Fields(deps)...) {
		// Paths say what to read and where to pack it.
		if !filepath.IsLocal(d) {
			return fmt.Errorf("path %q leaves the directory", d)
		}
	}
	for d := range strings.FieldsSeq(deps) {
		e.deps = append(e.deps, CanonicalName(d))
	}
	t.modules[CanonicalName(file)] = e
	return nil
}

func (t *Tree) addBuiltin(line string) error {
	t.builtin[CanonicalName(line)] = line
	return nil
}

// addAlias notes the bus of an alias. Of plain aliases, which people write, it also notes the name.
func (t *Tree) addAlias(line string) error {
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != "alias" {
		return nil
	}
	module := canonical(f[2])
	t.addBus(module, f[1])
	if !strings.ContainsAny(f[1], "*?[") {
		name := canonical(f[1])
		t.aliases[name] = append(t.aliases[name], module)
	}
	return nil
}

func (t *Tree) addSoftdep(line string) error {
	f := strings.Fields(line)
	if len(f) < 2 || f[0] != "softdep" {
		return nil
	}
	name := canonical(f[1])
	s := t.soft[name]
	into := (*[]string)(nil)
	for _, w := range f[2:] {
		switch {
		case w == "pre:":
			into = &s.pre
		case w == "post:":
			into = &s.post
		case into != nil:
			*into = append(*into, canonical(w))
		}
	}
	t.soft[name] = s
	return nil
}

// addWeakdep notes the modules that a module asks the kernel to load when it finds hardware for them (MODULE_WEAKDEP,
// Linux 6.12), such as the driver of a network card's PHY. A capture kernel has no modprobe, so they are loaded first.
func (t *Tree) addWeakdep(line string) error {
	f := strings.Fields(line)
	if len(f) < 2 || f[0] != "weakdep" {
		return nil
	}
	name := canonical(f[1])
	s := t.soft[name]
	for _, w := range f[2:] {
		s.pre = append(s.pre, canonical(w))
	}
	t.soft[name] = s
	return nil
}

// Resolve returns the modules to load for the wanted ones, each once and after its dependencies, and the names of those
// that are built into the kernel. Each of wanted is a name, with - or _, and optional parameters: "virtio_net napi_tx=0".
// An alias stands for all modules that have it. Soft dependencies and modules that a driver needs to find its devices
// (see carriers and companions) are included if the kernel has them. Errors are of type *ModuleError.
func (t *Tree) Resolve(wanted []string) (list []Module, builtin []string, err error) {
	r := resolver{t: t, done: map[string]bool{}, open: map[string]bool{}, params: map[string]string{}}
	var names []string
	for _, w := range wanted {
		name, params, _ := strings.Cut(strings.TrimSpace(w), " ")
		if name == "" {
			return nil, nil, &ModuleError{Module: fmt.Sprintf("%q", w), Err: errors.New("no name")}
		}
		found := t.lookup(CanonicalName(name))
		if len(found) == 0 {
			return nil, nil, &ModuleError{Module: name, Near: t.near(CanonicalName(name)), Err: fmt.Errorf("%w %s", ErrUnknownModule, t.release)}
		}
		if params = strings.TrimSpace(params); params != "" {
			for _, real := range found {
				r.params[real] = params
			}
		}
		names = append(names, found...)
	}
	for _, name := range names {
		if err := r.add(name); err != nil {
			return nil, nil, err
		}
	}
	return r.list, r.builtin, nil
}

// lookup finds the modules for a canonical name: the one of that name, or otherwise, as modprobe does, all that have it as
// an alias.
func (t *Tree) lookup(name string) []string {
	if t.known(name) {
		return []string{name}
	}
	var found []string
	for _, a := range t.aliases[name] {
		if t.known(a) && !slices.Contains(found, a) {
			found = append(found, a)
		}
	}
	return found
}

func (t *Tree) known(name string) bool {
	_, ok := t.modules[name]
	return ok || t.builtin[name] != ""
}

// resolver orders modules by walking their dependencies depth first.
type resolver struct {
	t          *Tree
	done, open map[string]bool
	params     map[string]string
	list       []Module
	builtin    []string
}

func (r *resolver) add(name string) error {
	if r.done[name] {
		return nil
	}
	if r.open[name] {
		return &ModuleError{Module: name, Err: ErrModuleCycle}
	}
	e, ok := r.t.modules[name]
	if !ok {
		r.done[name] = true
		r.builtin = append(r.builtin, name)
		return nil
	}
	r.open[name] = true
	defer delete(r.open, name)
	r.addSoft(r.t.soft[name].pre)
	r.addSoft(r.t.carriersOf(name))
	// depmod lists the farthest dependency last.
	for _, dep := range slices.Backward(e.deps) {
		if !r.t.known(dep) {
			return &ModuleError{Module: name, Err: fmt.Errorf("needs %s, which modules.dep does not have", dep)}
		}
		if err := r.add(dep); err != nil {
			return err
		}
	}
	r.done[name] = true
	r.list = append(r.list, Module{Name: name, Path: e.path, Params: r.params[name]})
	r.addSoft(r.t.soft[name].post)
	r.addSoft(companions[name])
	return nil
}

// addSoft adds soft dependencies. Like modprobe, it ignores missing ones and those that close a cycle.
func (r *resolver) addSoft(names []string) {
	for _, n := range names {
		for _, real := range r.t.lookup(n) {
			r.addOptional(real)
		}
	}
}

func (r *resolver) addOptional(name string) {
	if r.open[name] || r.done[name] || r.t.Builtin(name) {
		return
	}
	saved := len(r.list)
	if err := r.add(name); err != nil {
		for _, m := range r.list[saved:] {
			delete(r.done, m.Name)
		}
		r.list = r.list[:saved]
	}
}

// CanonicalName returns the name of the module in a file as the kernel lists it: without directory, .ko and compression
// suffix, with underscores.
func CanonicalName(file string) string {
	name := path.Base(file)
	for _, suffix := range []string{".xz", ".zst", ".gz"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return canonical(strings.TrimSuffix(name, ".ko"))
}

func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// eachLine calls f for every line of an index file except empty lines and comments. Errors name file and line.
func eachLine(dir, name string, f func(string) error) error {
	file, err := plainfile.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	sc := bufio.NewScanner(io.LimitReader(file, maxIndexFile))
	sc.Buffer(make([]byte, 0, 64<<10), maxIndexLine)
	n := 0
	for sc.Scan() {
		n++
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := f(line); err != nil {
			return fmt.Errorf("%s:%d: %w", file.Name(), n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("%s: %w", file.Name(), err)
	}
	return nil
}
