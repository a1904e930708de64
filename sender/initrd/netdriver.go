package initrd

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// registersInterface reports whether a module makes network interfaces: whether it asks the kernel
// for one of the functions that do. That holds for modules of any origin, wherever their file lies.
func registersInterface(f *elf.File) bool {
	symbols, err := f.Symbols()
	if err != nil {
		return false // without a symbol table it asks for nothing
	}
	return slices.ContainsFunc(symbols, func(s elf.Symbol) bool {
		return s.Section == elf.SHN_UNDEF && (s.Name == "register_netdev" || s.Name == "register_netdevice")
	})
}

// networkDrivers lists those of the modules that drive network hardware: they make interfaces and match
// devices of some bus, either by themselves or with what they depend on. So neither bonding counts, which
// has no hardware, nor half a driver (mlx4_core). registers has the modules of which registersInterface holds.
func (t *Tree) networkDrivers(list []Module, registers map[string]bool) []string {
	var names []string
	for _, m := range list {
		makes, matches := false, false
		for _, part := range append([]string{m.Name}, t.modules[m.Name].deps...) {
			makes = makes || registers[part]
			matches = matches || len(t.buses[part]) > 0
		}
		if makes && matches {
			names = append(names, m.Name)
		}
	}
	return names
}

// builtinNetworkDrivers lists those that are part of the kernel image. There, only paths and, since
// Linux 5.2, aliases tell.
func (t *Tree) builtinNetworkDrivers() []string {
	var names []string
	for name, file := range t.builtin {
		_, below, ok := strings.Cut(file, "drivers/net/")
		phy := strings.HasPrefix(below, "phy/") || strings.HasPrefix(below, "mdio/") || strings.HasPrefix(below, "pcs/")
		if ok && !phy && (len(t.buses[name]) > 0 || strings.HasPrefix(below, "ethernet/")) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// CardModules lists the modules that drive the network cards of the running machine and what those are
// plugged into, the outermost first: for a virtual machine virtio_pci and virtio_net. sys is where sysfs
// is mounted. What is built into the kernel is not listed; what cannot be read is left out.
func CardModules(sys string) []string {
	cards, _ := filepath.Glob(filepath.Join(sys, "class/net/*/device")) // the pattern is good
	var names []string
	for _, card := range cards {
		dir, err := filepath.EvalSymlinks(card)
		if err != nil {
			continue
		}
		var path []string
		for ; strings.HasPrefix(dir, sys) && dir != sys; dir = filepath.Dir(dir) {
			if module, err := os.Readlink(filepath.Join(dir, "driver/module")); err == nil {
				path = append(path, filepath.Base(module))
			}
		}
		for _, m := range slices.Backward(path) {
			if !slices.Contains(names, m) {
				names = append(names, m)
			}
		}
	}
	return names
}
