package initrd

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/u-root/u-root/pkg/cpio"
)

// A network card that gets no firmware from the initramfs has no link: there is no other place to take it from.
func TestFirmwareOfModulesIsPacked(t *testing.T) {
	o := testOptions(t, "to = [\"tls://192.0.2.1:7443\"]\nidentity = \"id.pem\"\n")
	o.KernelModules, o.Modules, o.Compression = busTree(t), []string{"e1000e", "r8169"}, "none"
	module := func(name, modinfo string) {
		t.Helper()
		write(t, filepath.Join(o.KernelModules, "kernel", name+".ko"), elfModule(machineX86, modinfo, "register_netdev"))
	}
	module("e1000e", "license=GPL\x00firmware=card/old.fw\x00firmware=card/new.fw\x00firmware=card/packed.fw\x00firmware=../../etc/shadow\x00")
	module("r8169", "firmware=rtl_nic/not-there.fw\x00")
	root := filepath.Dir(filepath.Dir(filepath.Dir(o.KernelModules)))
	firmware := filepath.Join(root, "lib", "firmware")
	write(t, filepath.Join(root, "lib", "etc", "shadow"), []byte("secret"))
	write(t, filepath.Join(firmware, "card", "new.fw"), []byte("plain"))
	// As the kernel does, the directory of its version comes first.
	write(t, filepath.Join(firmware, "6.1.0-bus", "card", "new.fw"), []byte("its own"))
	write(t, filepath.Join(firmware, "card", "packed.fw.xz"), packed(t, ".xz", []byte("unpacked")))

	var b bytes.Buffer
	rep, err := Pack(&b, o)
	if err != nil {
		t.Fatal(err)
	}
	records := readArchive(t, &b)
	got := map[string]string{}
	for name, r := range records {
		if ok, _ := filepath.Match("lib/firmware/*/*", name); ok && r.Mode&cpio.S_IFMT == cpio.S_IFREG {
			got[name] = contents(t, r)
		}
	}
	want := map[string]string{"lib/firmware/card/new.fw": "its own", "lib/firmware/card/packed.fw": "unpacked"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("firmware, -want +got\n%s", d)
	}
	if d := cmp.Diff([]string{"r8169"}, rep.NoFirmware); d != "" {
		t.Errorf("without firmware, -want +got\n%s", d)
	}
	if rep.Firmware != int64(len("its own")+len("unpacked")) {
		t.Errorf("reported %d bytes of firmware", rep.Firmware)
	}
}
