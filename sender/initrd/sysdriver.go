package initrd

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// maxModalias bounds an alias of a device, in bytes.
const maxModalias = 4 << 10

// A sysDriver is the driver of a device of the running system.
type sysDriver struct {
	// module is its module, empty if it is built into the running kernel.
	module string
	// alias is the device's. Another kernel may have a module for it.
	alias string
}

// driversOf lists the drivers of a device of the running system and of the buses above it, the outermost first. device is its
// directory below sys, or a link to it. Devices without a driver are left out.
func driversOf(sys, device string) []sysDriver {
	var list []sysDriver
	real, _ := filepath.EvalSymlinks(device) // a device that has just gone has no drivers
	top, _ := filepath.EvalSymlinks(sys)
	for dir := real; strings.HasPrefix(dir, top+"/"); dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(dir, "driver")); err != nil {
			continue
		}
		var d sysDriver
		if module, err := os.Readlink(filepath.Join(dir, "driver/module")); err == nil {
			d.module = filepath.Base(module)
		}
		if alias, err := plainfile.Read(filepath.Join(dir, "modalias"), maxModalias); err == nil {
			d.alias = strings.TrimSpace(string(alias))
		}
		list = append(list, d)
	}
	slices.Reverse(list)
	return list
}

// driversOfAll is driversOf for several devices, whose directories are relative to sys.
func driversOfAll(sys string, devices []string) []sysDriver {
	var list []sysDriver
	for _, device := range devices {
		list = append(list, driversOf(sys, filepath.Join(sys, device))...)
	}
	return list
}

// DeviceModules lists the modules that drive devices of the running system and the buses above them, the outermost first. sys
// is where sysfs is mounted, and devices are directories below it, as in Options. Drivers without a module are left out.
func DeviceModules(sys string, devices ...string) []string {
	var names []string
	for _, d := range driversOfAll(sys, devices) {
		if d.module != "" && !slices.Contains(names, d.module) {
			names = append(names, d.module)
		}
	}
	return names
}

// diskDrivers lists the drivers of a block device of the running system and of the buses above it.
func diskDrivers(sys, name string) []sysDriver {
	device := filepath.Join(sys, "class/block", name)
	list := driversOf(sys, device)
	// With native multipath (nvme_core.multipath), the disk of an NVMe subsystem belongs to no controller. Links beside it lead
	// to them.
	real, _ := filepath.EvalSymlinks(device)
	for dir := real; len(dir) > 1; dir = filepath.Dir(dir) {
		if strings.HasPrefix(filepath.Base(filepath.Dir(dir)), "nvme-subsystem") {
			controllers, _ := filepath.Glob(filepath.Join(dir, "nvme[0-9]*")) // the pattern is good
			for _, c := range controllers {
				list = append(list, driversOf(sys, c)...)
			}
		}
	}
	return list
}

// modulesFor returns the modules of this tree for drivers of the running system, whose kernel may be another one. missing has
// modules that the tree does not know.
func (t *Tree) modulesFor(drivers []sysDriver) (names, missing []string, err error) {
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, d := range drivers {
		switch {
		case d.module != "" && t.known(CanonicalName(d.module)):
			add(d.module)
			continue
		case d.module != "":
			missing = append(missing, d.module)
		}
		if d.alias == "" {
			continue
		}
		if err := t.eachMatch(d.alias, add); err != nil {
			return nil, nil, err
		}
	}
	return names, missing, nil
}

// eachMatch calls f with each module that has an alias for a device.
func (t *Tree) eachMatch(device string, f func(module string)) error {
	return eachLine(t.dir, "modules.alias", func(line string) error {
		w := strings.Fields(line)
		if len(w) != 3 || w[0] != "alias" {
			return nil
		}
		// depmod writes patterns of fnmatch(3). A slash in a device's alias is no separator, but none of its wildcards spans one.
		if ok, err := path.Match(w[1], device); err == nil && ok {
			f(w[2])
		}
		return nil
	})
}
