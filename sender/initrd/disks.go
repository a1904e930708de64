package initrd

import (
	"errors"
	"fmt"
	"slices"

	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/disk"
)

// A Disk is the file system of a file:// target.
type Disk struct {
	Spec disk.Spec
	// Device and Type are those of the running system. They are empty if it does not have the file system.
	Device, Type string
	// Missing lists drivers of the running system that KernelModules does not have.
	Missing []string
	// NotFound says what there is instead, if the running system does not have the file system.
	NotFound error
}

// fileSystems are the modules of the file systems that package disk knows.
var fileSystems = []string{"ext4", "xfs", "btrfs"}

// findDisks looks on the running system for the file systems of targets. What the capture kernel could not mount, or could not
// write into, is an error.
func findDisks(sys disk.System, to []string) ([]Disk, error) {
	var disks []Disk
	for _, target := range to {
		t, err := config.LocalTarget(target)
		if err != nil {
			continue // checked with the configuration, or no disk
		}
		d := Disk{Spec: t.FS}
		dev, err := sys.Find(t.FS)
		if missing, ok := errors.AsType[*disk.NotFoundError](err); ok {
			d.NotFound = missing
		} else if err == nil {
			d.Device, d.Type = dev.Name, dev.Type
			err = sys.CheckDir(dev, t.Dir)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", target, err)
			}
		} else {
			return nil, fmt.Errorf("%s: %w", target, err)
		}
		disks = append(disks, d)
	}
	return disks, nil
}

// modulesOf returns the modules that the disks of the running system need, and notes in disks what the tree lacks.
func (t *Tree) modulesOf(sys string, disks []Disk) ([]string, error) {
	var names []string
	for i := range disks {
		d := &disks[i]
		if d.Device == "" {
			continue
		}
		drivers, missing, err := t.modulesFor(diskDrivers(sys, d.Device))
		if err != nil {
			return nil, err
		}
		d.Missing = missing
		for _, name := range append(drivers, d.Type) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// fileSystemDrivers lists the file systems that a capture kernel with these modules can mount.
func (t *Tree) fileSystemDrivers(list []Module) []string {
	var names []string
	for _, name := range fileSystems {
		if t.Builtin(name) || slices.ContainsFunc(list, func(m Module) bool { return m.Name == name }) {
			names = append(names, name)
		}
	}
	return names
}
