package initrd

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/elf64"
)

// registersInterface reports whether a module makes network interfaces, that is, imports a kernel function that registers
// one. This does not depend on the path of the module.
func registersInterface(f *elf64.File) bool {
	symbols, err := f.Imports()
	if err != nil {
		return false // without a symbol table it imports nothing
	}
	return slices.Contains(symbols, "register_netdev") || slices.Contains(symbols, "register_netdevice")
}

// networkDrivers lists the modules that drive network hardware: alone or with their dependencies, they make interfaces
// and match devices of a bus. So bonding does not count, which has no hardware, nor does mlx4_core, which makes no
// interface. registers has the result of registersInterface for each module.
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

// builtinNetworkDrivers lists the network drivers in the kernel image. It can only judge by their paths and, since Linux
// 5.2, their aliases.
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

// CardModules lists the modules of the running machine's network cards and of the buses above them, the outermost first:
// virtio_pci and virtio_net in a virtual machine. sys is where sysfs is mounted. Built-in drivers are not listed, nor are
// those that cannot be read.
func CardModules(sys string) []string { return DeviceModules(sys, CardDevices(sys)...) }

// CardDevices lists the devices of the network cards of the running machine, for Options.Devices. sys is where sysfs is mounted.
func CardDevices(sys string) []string {
	cards, _ := filepath.Glob(filepath.Join(sys, "class/net/*/device")) // the pattern is good
	for i, card := range cards {
		cards[i] = strings.TrimPrefix(card, sys+"/")
	}
	return cards
}
