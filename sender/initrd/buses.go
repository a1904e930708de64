package initrd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// carriers lists for each bus the drivers that register its devices. The key is the beginning of the aliases for that bus.
// Other drivers do not depend on them by symbols, so modules.dep does not name them. In a running system udev loads them
// for the device that carries the bus. A capture initramfs has no udev.
//
// Sources: the aliases that scripts/mod/file2alias.c of the kernel writes for each bus, and the
// drivers that register devices there. In kernels of distributions, PCI, ACPI, platform and
// device tree need no module. ssb, bcma and thunderbolt are dependencies by symbol.
var carriers = map[string][]string{
	"virtio": {"virtio_pci", "virtio_mmio"},
	"vmbus":  {"hv_vmbus"},
	"xen":    {"xenbus_probe_frontend"},
	// EHCI comes before its companions, which would take its ports (softdep uhci_hcd pre: ehci_pci).
	"usb": {
		"xhci_pci", "xhci_plat_hcd", "ehci_pci", "ehci_platform", "ohci_pci", "ohci_platform", "uhci_hcd",
	},
	"sdio":   {"sdhci_pci", "sdhci_acpi"},
	"pcmcia": {"yenta_socket"},
}

// companions lists modules that another module needs, but that no index of depmod names for it.
var companions = map[string][]string{
	// mlx4_core asks modprobe for the module with the network interfaces.
	"mlx4_core": {"mlx4_en"},
	// The driver of the chipset registers the platform device of the watchdog.
	"iTCO_wdt": {"lpc_ich", "i2c_i801"},
	// ipmi_si finds the management controller that has the watchdog.
	"ipmi_watchdog": {"ipmi_si"},
}

// noDevice lists beginnings of aliases with a colon that match no device. devname names a file that udev makes in /dev.
var noDevice = []string{"devname"}

// addBus notes the bus of an alias, as "virtio" in virtio:d00000001v* and "acpi" in acpi*:VMBUS:*.
func (t *Tree) addBus(module, alias string) {
	bus, _, ok := strings.Cut(alias, ":")
	bus = strings.TrimRight(bus, "*")
	if ok && bus != "" && !slices.Contains(noDevice, bus) && !slices.Contains(t.buses[module], bus) {
		t.buses[module] = append(t.buses[module], bus)
	}
}

// carriersOf lists the drivers that register the devices of a module.
func (t *Tree) carriersOf(module string) []string {
	var names []string
	for _, bus := range t.buses[module] {
		names = append(names, carriers[bus]...)
	}
	return names
}

// addBuiltinAliases reads modules.builtin.modinfo (Linux 5.2): entries NAME.KEY=VALUE, each with a zero byte at its end.
func (t *Tree) addBuiltinAliases() error {
	f, err := plainfile.Open(filepath.Join(t.dir, "modules.builtin.modinfo"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	sc := bufio.NewScanner(io.LimitReader(f, maxIndexFile))
	sc.Buffer(make([]byte, 0, 64<<10), maxIndexLine)
	sc.Split(splitZero)
	for sc.Scan() {
		name, info, _ := strings.Cut(sc.Text(), ".")
		if alias, ok := strings.CutPrefix(info, "alias="); ok {
			t.addBus(canonical(name), alias)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// splitZero is a bufio.SplitFunc for texts that end with a zero byte.
func splitZero(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}
