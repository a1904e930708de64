package network

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Lines of Linux 6.1 of Debian with a card of QEMU's i82551 and without firmware, and of a kernel without Debian's changes.
const firmwareLog = `6,301,2263310,-;e100: Intel(R) PRO/100 Network Driver
4,345,2521200,-;e100 0000:00:04.0: firmware: failed to load e100/d102e_ucode.bin (-2)
 SUBSYSTEM=pci
 DEVICE=+pci:0000:00:04.0
4,346,2521244,-;firmware_class: See https://wiki.debian.org/Firmware for information about missing firmware
4,347,2521300,-;e100 0000:00:04.0: Direct firmware load for e100/d102e_ucode.bin failed with error -2
4,348,2521301,-;bnx2 0000:01:00.0: Direct firmware load for bnx2/bnx2-mips-09-6.2.1b.fw failed with error -2
`

func TestMissingFirmware(t *testing.T) {
	want := []string{
		"/lib/firmware/e100/d102e_ucode.bin for e100 0000:00:04.0",
		"/lib/firmware/bnx2/bnx2-mips-09-6.2.1b.fw for bnx2 0000:01:00.0",
	}
	if got := missingFirmware(firmwareLog); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzMissingFirmware(f *testing.F) {
	f.Add(firmwareLog)
	f.Add("4,1,1,-;Direct firmware load for x failed with error -2")
	f.Fuzz(func(t *testing.T, log string) {
		for _, line := range missingFirmware(log) {
			if file := strings.TrimPrefix(strings.Fields(line)[0], "/lib/firmware/"); !strings.Contains(log, file) {
				t.Errorf("%q is not in the log", file)
			}
		}
	})
}

func TestKernelLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kmsg")
	if log := kernelLog(file); log != "" {
		t.Errorf("got %q of no file", log)
	}
	if err := os.WriteFile(file, []byte(firmwareLog), 0o600); err != nil {
		t.Fatal(err)
	}
	if log := kernelLog(file); log != firmwareLog {
		t.Errorf("got %q", log)
	}
}

func TestIdleCards(t *testing.T) {
	sys := t.TempDir()
	device := func(path string, attributes map[string]string, driver string) {
		dir := filepath.Join(sys, "bus", path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, value := range attributes {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if driver != "" {
			if err := os.Symlink("../../drivers/"+driver, filepath.Join(dir, "driver")); err != nil {
				t.Fatal(err)
			}
		}
	}
	device("pci/devices/0000:00:03.0", map[string]string{"class": "0x020000", "vendor": "0x1af4", "device": "0x1000"}, "virtio-pci")
	device("pci/devices/0000:00:04.0", map[string]string{"class": "0x020000", "vendor": "0x10ec", "device": "0x8139"}, "")
	device("pci/devices/0000:00:05.0", map[string]string{"class": "0x010601", "vendor": "0x8086", "device": "0x2922"}, "")
	device("virtio/devices/virtio0", map[string]string{"modalias": "virtio:d00000001v00001AF4"}, "")
	device("virtio/devices/virtio1", map[string]string{"modalias": "virtio:d00000002v00001AF4"}, "")
	want := []string{"0000:00:04.0 (PCI 10ec:8139)", "virtio0 (virtio, module virtio_net)"}
	if got := idleCards(sys); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
