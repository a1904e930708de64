package initrd

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/disk"
)

const diskUUID = "01234567-89ab-cdef-0123-456789abcdef"

// diskSystem is a machine with an ext4 on vda, whose bus has a driver that is built in and one that is a module.
func diskSystem(t *testing.T) disk.System {
	t.Helper()
	dir := t.TempDir()
	sys := filepath.Join(dir, "sys")
	link := func(target, name string) {
		name = filepath.Join(sys, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.Symlink(target, name)); err != nil {
			t.Fatal(err)
		}
	}
	const device = "devices/pci0/virtio0/block/vda"
	sb, err := os.ReadFile("../disk/testdata/mkfs.ext4-1.47.0")
	if err != nil {
		t.Fatal(err)
	}
	image := make([]byte, 256<<10)
	copy(image[1024:], sb)
	write(t, filepath.Join(dir, "dev/vda"), image)
	write(t, filepath.Join(dir, "mountinfo"), []byte("1 1 252:0 / "+dir+" rw - ext4 /dev/root rw\n"))
	write(t, filepath.Join(sys, device, "size"), []byte("512\n"))
	write(t, filepath.Join(sys, device, "dev"), []byte("252:0\n"))
	write(t, filepath.Join(sys, "devices/pci0/modalias"), []byte("pci:v00001AF4d00001001sv0\n"))
	write(t, filepath.Join(sys, "devices/pci0/virtio0/modalias"), []byte("virtio:d00000002v00001AF4\n"))
	link(filepath.Join(sys, device), "class/block/vda")
	link("/bus/pci/drivers/built-in", "devices/pci0/driver")
	link(filepath.Join(sys, "bus/virtio/drivers/virtio_blk"), "devices/pci0/virtio0/driver")
	link("/module/virtio_blk", "bus/virtio/drivers/virtio_blk/module")
	return disk.System{Sys: sys, Dev: filepath.Join(dir, "dev"), MountInfo: filepath.Join(dir, "mountinfo")}
}

// diskTree is a tree whose kernel has the bus as a module, and ext4 with a soft dependency.
func diskTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "6.1.0-test")
	var deps strings.Builder
	for _, name := range []string{"virtio_blk", "virtio_pci", "virtio_net", "ext4", "jbd2", "crc_fast"} {
		write(t, filepath.Join(dir, name+".ko"), tinyELF(machineX86, false, name))
		deps.WriteString(name + ".ko:")
		if name == "ext4" {
			deps.WriteString(" jbd2.ko")
		}
		deps.WriteString("\n")
	}
	write(t, filepath.Join(dir, "modules.dep"), []byte(deps.String()))
	write(t, filepath.Join(dir, "modules.alias"), []byte("alias crc32c crc_fast\nalias pci:v00001AF4d*sv* virtio_pci\nalias virtio:d00000001v* virtio_net\nalias virtio:d00000002v* virtio_blk\n"))
	write(t, filepath.Join(dir, "modules.softdep"), []byte("softdep ext4 pre: crc32c\n"))
	return dir
}

func diskOptions(t *testing.T, to string) Options {
	t.Helper()
	o := testOptions(t, "to = [\""+to+"\"]\n")
	o.KernelModules, o.Modules, o.System = diskTree(t), nil, diskSystem(t)
	return o
}

// TestDiskModules: the drivers of a disk of this machine are packed, also one that is built into the running kernel alone.
func TestDiskModules(t *testing.T) {
	rep, err := Pack(io.Discard, diskOptions(t, "file:///?fs=UUID="+diskUUID))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range rep.Modules {
		names = append(names, m.Name)
	}
	if d := cmp.Diff([]string{"virtio_pci", "virtio_blk", "crc_fast", "jbd2", "ext4"}, names); d != "" {
		t.Errorf("load order, -want +got\n%s", d)
	}
	want := []Disk{{Spec: disk.Spec{UUID: diskUUID}, Device: "vda", Type: "ext4"}}
	if d := cmp.Diff(want, rep.Disks); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if d := cmp.Diff([]string{"ext4"}, rep.Mountable); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// TestDiskElsewhere: a disk of another machine needs the names of its drivers.
func TestDiskElsewhere(t *testing.T) {
	o := diskOptions(t, "file:///crash?fs=LABEL=elsewhere")
	rep, err := Pack(io.Discard, o)
	if err != nil || len(rep.Disks) != 1 || rep.Disks[0].NotFound == nil || len(rep.Mountable) != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	o.Modules = []string{"ext4"}
	if rep, err = Pack(io.Discard, o); err != nil || len(rep.Mountable) != 1 {
		t.Errorf("with a driver: %+v, %v", rep, err)
	}
}

// TestDiskRefused: what would fail in the capture kernel fails when it is packed.
func TestDiskRefused(t *testing.T) {
	for to, has := range map[string]string{
		"file:///none?fs=UUID=" + diskUUID: "vda has no directory /none", "file:///crash": "name it, file:///PATH[?fs=",
	} {
		o := diskOptions(t, to)
		_, err := Pack(io.Discard, o)
		var ce *config.Error
		if !errors.As(err, &ce) || !strings.Contains(err.Error(), has) || !strings.Contains(err.Error(), to) {
			t.Errorf("%s: %v", to, err)
		}
	}
	o := diskOptions(t, "file:///?fs=UUID="+diskUUID)
	write(t, filepath.Join(o.System.Sys, "devices/pci0/virtio0/block/vda/dm/uuid"), []byte("LVM-x"))
	var refused *disk.RefusedError
	if _, err := Pack(io.Discard, o); !errors.As(err, &refused) || !strings.Contains(err.Error(), "logical volume") {
		t.Errorf("LVM: %v", err)
	}
}

// TestNVMeControllers: the disk of an NVMe subsystem belongs to no controller. Its drivers are those of all controllers.
func TestNVMeControllers(t *testing.T) {
	sys := t.TempDir()
	link := func(target, name string) {
		name = filepath.Join(sys, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.Symlink(target, name)); err != nil {
			t.Fatal(err)
		}
	}
	const subsystem = "devices/virtual/nvme-subsystem/nvme-subsys0/"
	write(t, filepath.Join(sys, subsystem, "nvme0n1/nvme0n1p1/partition"), nil)
	write(t, filepath.Join(sys, "devices/pci0/nvme/nvme0/dev"), nil)
	link(filepath.Join(sys, "devices/pci0/nvme/nvme0"), subsystem+"nvme0")
	link(filepath.Join(sys, "bus/pci/drivers/nvme"), "devices/pci0/driver")
	link("/module/nvme", "bus/pci/drivers/nvme/module")
	link(filepath.Join(sys, subsystem, "nvme0n1/nvme0n1p1"), "class/block/nvme0n1p1")
	list := diskDrivers(sys, "nvme0n1p1")
	if len(list) != 1 || list[0].module != "nvme" {
		t.Errorf("%+v, want nvme", list)
	}
}
