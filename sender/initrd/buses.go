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

// carriers are the drivers that make the devices of a bus appear, by what the aliases of
// drivers for that bus begin with. A driver does not depend on them by its symbols, so
// modules.dep does not name them: udev loads them in a running system because it finds the
// device that carries the bus. A capture initramfs has no udev.
//
// Sources: the aliases that scripts/mod/file2alias.c of the kernel writes for each bus, and the
// drivers that register devices there. PCI, ACPI, platform and device tree need no module in any
// kernel of a distribution; ssb, bcma and thunderbolt come as dependencies by symbol.
var carriers = map[string][]string{
	"virtio": {"virtio_pci", "virtio_mmio"},
	"vmbus":  {"hv_vmbus"},
	"xen":    {"xenbus_probe_frontend"},
	// EHCI before its companions: they would take its ports (softdep uhci_hcd pre: ehci_pci).
	"usb": {
		"xhci_pci", "xhci_plat_hcd", "ehci_pci", "ehci_platform", "ohci_pci", "ohci_platform", "uhci_hcd",
	},
	"sdio":   {"sdhci_pci", "sdhci_acpi"},
	"pcmcia": {"yenta_socket"},
}

// companions are modules that others are useless without and that no index of depmod connects
// with them.
var companions = map[string][]string{
	// The core asks the running system's modprobe for the part with the network interfaces.
	"mlx4_core": {"mlx4_en"},
	// The watchdog is a platform device, which the driver of the chip around it registers.
	"iTCO_wdt": {"lpc_ich", "i2c_i801"},
	// The watchdog is a service of the management controller, which ipmi_si finds.
	"ipmi_watchdog": {"ipmi_si"},
}

// noDevice are beginnings of aliases that have a colon and match no device: devname is a file
// in /dev that udev makes.
var noDevice = []string{"devname"}

// addBus notes the bus of an alias, as "virtio" in virtio:d00000001v* and "acpi" in acpi*:VMBUS:*.
func (t *Tree) addBus(module, alias string) {
	bus, _, ok := strings.Cut(alias, ":")
	bus = strings.TrimRight(bus, "*")
	if ok && bus != "" && !slices.Contains(noDevice, bus) && !slices.Contains(t.buses[module], bus) {
		t.buses[module] = append(t.buses[module], bus)
	}
}

// carriersOf lists what makes the devices of a module appear.
func (t *Tree) carriersOf(module string) []string {
	var names []string
	for _, bus := range t.buses[module] {
		names = append(names, carriers[bus]...)
	}
	return names
}

// addBuiltinAliases reads modules.builtin.modinfo (Linux 5.2): NAME.KEY=VALUE, each ended by a zero byte.
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

// splitZero is a bufio.SplitFunc for texts that zero bytes end.
func splitZero(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}
