package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/sender/initrd"
)

// On the module trees of real kernels, a network driver comes with the drivers of the bus that its card is on,
// unless that kernel has them built in (6.12 has virtio_pci).
func TestNetworkModulesOfRealKernelsBringTheirBus(t *testing.T) {
	for _, name := range lab.KernelNames() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, err := lab.GetKernel(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			tree, err := initrd.OpenTree(k.ModulesDir)
			if err != nil {
				t.Fatal(err)
			}
			wants := map[string]string{
				"virtio_net": "virtio_pci virtio_mmio", "virtio_blk": "virtio_pci", "hv_netvsc": "hv_vmbus",
				"xen_netfront": "xenbus_probe_frontend", "mlx4_core": "mlx4_en",
			}
			if strings.HasSuffix(k.Release, "-amd64") && !strings.Contains(k.Release, "cloud") {
				// The other flavours have no cards of metal.
				wants["r8152"] = "xhci_pci ehci_pci uhci_hcd"
				wants["r8169"] = "realtek"
				wants["e1000e"] = ""
				wants["iTCO_wdt"] = "lpc_ich i2c_i801"
			}
			for module, needs := range wants {
				checkBrings(t, tree, module, strings.Fields(needs))
			}
		})
	}
}

// checkBrings holds Resolve of one module to what it must bring, in an order in which it can be loaded.
func checkBrings(t *testing.T, tree *initrd.Tree, module string, needs []string) {
	t.Helper()
	list, _, err := tree.Resolve([]string{module})
	if errors.Is(err, initrd.ErrUnknownModule) && module != "virtio_net" {
		return // kernels with large pages have no Xen, for one
	}
	if err != nil {
		t.Errorf("%s: %v", module, err)
		return
	}
	var names []string
	for _, m := range list {
		names = append(names, m.Name)
	}
	for _, n := range append(needs, module) {
		if !slices.Contains(names, n) && !tree.Builtin(n) {
			t.Errorf("%s brings %s, and %s is neither among them nor built in", module, names, n)
		}
	}
}

// Who packs an image for a real kernel is warned while it can be mended when that will have no network.
func TestImageWithoutNetworkDriverIsWarnedOf(t *testing.T) {
	k, err := lab.GetKernel(t.Context(), "6.1-generic")
	if err != nil {
		t.Fatal(err)
	}
	s := judgesNew(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "send.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "to = [\"tls://192.0.2.1:7420\"]\nidentity = %q\n", s.identity), 0o600); err != nil {
		t.Fatal(err)
	}
	for module, network := range map[string]bool{
		"virtio_net": true, "asix": true, "mlx4_core": true, "e1000e": true,
		"bonding": false, "virtio_blk": false, "iTCO_wdt": false, "realtek": false,
	} {
		_, said := judgesRun(t, 0, "corehaul-send", "initrd", "--kernel-modules", k.ModulesDir, "--module", module,
			"--config", config, "-o", filepath.Join(dir, module), "--compress", "none")
		if warned := strings.Contains(said, "has no driver of a network card"); warned == network {
			t.Errorf("image with %s: standard error is\n%s\nwant a warning: %t", module, said, !network)
		}
	}
}
