package initrd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// elfWithUndefined is a relocatable ELF file that asks for the symbols, as a module asks the kernel.
func elfWithUndefined(machine uint16, symbols ...string) []byte {
	return elfModule(machine, "", symbols...)
}

// elfModule has in its section .modinfo what modinfo says, too.
func elfModule(machine uint16, modinfo string, symbols ...string) []byte {
	names, table := []byte("\x00.modinfo\x00"), make([]byte, 24)
	le := binary.LittleEndian
	for _, s := range symbols {
		entry := make([]byte, 24)
		le.PutUint32(entry, uint32(len(names)))
		entry[4] = 1 << 4 // global, no type; section 0: undefined
		table = append(table, entry...)
		names = append(append(names, s...), 0)
	}
	b := tinyELF(machine, false, "")
	le.PutUint16(b[16:], 1)
	namesAt := len(b)
	b = append(b, names...)
	tableAt := len(b)
	b = append(b, table...)
	modinfoAt := len(b)
	b = append(b, modinfo...)
	le.PutUint64(b[40:], uint64(len(b)))
	for i, v := range []uint16{64, 4, 1} { // size and number of section headers, that of the names
		le.PutUint16(b[58+2*i:], v)
	}
	section := func(name, kind uint32, at, size int, link uint32, entry uint64) {
		h := make([]byte, 64)
		le.PutUint32(h, name)
		le.PutUint32(h[4:], kind)
		le.PutUint64(h[24:], uint64(at))
		le.PutUint64(h[32:], uint64(size))
		le.PutUint32(h[40:], link)
		le.PutUint64(h[56:], entry)
		b = append(b, h...)
	}
	section(0, 0, 0, 0, 0, 0)
	section(0, 3, namesAt, len(names), 0, 0)
	section(0, 2, tableAt, len(table), 1, 24)
	section(1, 1, modinfoAt, len(modinfo), 0, 0) // its name is at 1 among the names
	return b
}

// busTree lays out drivers of several buses, and kernel modules that are none.
func busTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "lib", "modules", "6.1.0-bus")
	interfaces := elfWithUndefined(machineX86, "printk", "register_netdev")
	for name, data := range map[string][]byte{
		"virtio": nil, "virtio_pci": nil, "virtio_mmio": nil, "virtio_net": interfaces, "virtio_blk": nil,
		"xhci-pci": nil, "xhci-hcd": nil, "ehci-pci": nil, "usbcore": nil, "usbnet": interfaces, "asix": nil,
		"mlx4_core": nil, "mlx4_en": interfaces, "bonding": interfaces, "e1000e": interfaces,
		"r8169": interfaces, "realtek": nil, "iTCO_wdt": nil, "lpc_ich": nil, "foreign": interfaces,
	} {
		if data == nil {
			data = elfWithUndefined(machineX86, "printk")
		}
		write(t, filepath.Join(dir, "kernel", name+".ko"), data)
	}
	write(t, filepath.Join(dir, "modules.dep"), []byte(`kernel/virtio.ko:
kernel/virtio_pci.ko: kernel/virtio.ko
kernel/virtio_mmio.ko: kernel/virtio.ko
kernel/virtio_net.ko: kernel/virtio.ko
kernel/virtio_blk.ko: kernel/virtio.ko
kernel/usbcore.ko:
kernel/xhci-hcd.ko: kernel/usbcore.ko
kernel/xhci-pci.ko: kernel/xhci-hcd.ko kernel/usbcore.ko
kernel/ehci-pci.ko: kernel/usbcore.ko
kernel/usbnet.ko: kernel/usbcore.ko
kernel/asix.ko: kernel/usbnet.ko kernel/usbcore.ko
kernel/mlx4_core.ko:
kernel/mlx4_en.ko: kernel/mlx4_core.ko
kernel/bonding.ko:
kernel/e1000e.ko:
kernel/r8169.ko:
kernel/realtek.ko:
kernel/iTCO_wdt.ko:
kernel/lpc_ich.ko:
`))
	write(t, filepath.Join(dir, "modules.alias"), []byte(`alias virtio:d00000001v* virtio_net
alias virtio:d00000002v* virtio_blk
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias of:N*T*Cvirtio,mmioC* virtio_mmio
alias usb:v0B95p1720d*dc*dsc*dp*ic*isc*ip*in* asix
alias pci:v000015B3d00001010sv*sd*bc*sc*i* mlx4_core
alias rtnl-link-bond bonding
alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e
alias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169
alias nic-of-two e1000e
alias nic-of-two r8169
`))
	write(t, filepath.Join(dir, "modules.weakdep"), []byte("weakdep r8169 realtek not_there\n"))
	return dir
}

func resolve(t *testing.T, dir string, wanted ...string) []string {
	t.Helper()
	tree, err := OpenTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := tree.Resolve(wanted)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, m := range list {
		names = append(names, m.Name)
	}
	return names
}

// A driver of a bus is useless without the driver that makes the bus appear, which no symbol connects
// it with: virtio_net without virtio_pci finds no card.
func TestModuleBringsBusDriversThatItNeeds(t *testing.T) {
	dir := busTree(t)
	for _, tc := range []struct{ wanted, want string }{
		{"virtio_net", "virtio virtio_pci virtio_mmio virtio_net"},
		{"virtio-blk", "virtio virtio_pci virtio_mmio virtio_blk"},
		{"asix", "usbcore xhci_hcd xhci_pci ehci_pci usbnet asix"},
		{"virtio_mmio", "virtio virtio_mmio"},
		{"e1000e", "e1000e"},
		{"mlx4_core", "mlx4_core mlx4_en"},
		{"mlx4_en", "mlx4_core mlx4_en"},
		{"iTCO_wdt", "iTCO_wdt lpc_ich"},
		{"r8169", "realtek r8169"},
		{"nic-of-two", "e1000e realtek r8169"},
	} {
		if d := cmp.Diff(strings.Fields(tc.want), resolve(t, dir, tc.wanted)); d != "" {
			t.Errorf("%s, -want +got\n%s", tc.wanted, d)
		}
	}
	// What the kernel has built in is not packed.
	write(t, filepath.Join(dir, "modules.builtin"), []byte("kernel/drivers/virtio/virtio_pci.ko\n"))
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "modules.dep"), bytes.Replace(dep, []byte("kernel/virtio_pci.ko: kernel/virtio.ko\n"), nil, 1))
	if d := cmp.Diff(strings.Fields("virtio virtio_mmio virtio_net"), resolve(t, dir, "virtio_net")); d != "" {
		t.Errorf("virtio_pci built in, -want +got\n%s", d)
	}
}

func TestNetworkDriverOfImageIsKnown(t *testing.T) {
	for _, tc := range []struct{ name, wanted, want string }{
		{"driver", "virtio_net", "virtio_net"},
		{"by what it depends on", "asix", "asix"},
		{"both halves", "mlx4_core", "mlx4_en"},
		{"of a disk", "virtio_blk", ""},
		{"no hardware", "bonding", ""},
		{"none", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := testOptions(t, "to = [\"tls://192.0.2.1:7443\"]\nidentity = \"id.pem\"\n")
			o.KernelModules, o.Modules = busTree(t), strings.Fields(tc.wanted)
			rep, err := Pack(&bytes.Buffer{}, o)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(rep.Network, " "); got != tc.want {
				t.Errorf("drivers of network hardware: %q, want %q", got, tc.want)
			}
		})
	}
}

func TestBuiltinNetworkDriverIsKnown(t *testing.T) {
	o := testOptions(t, "to = [\"tls://192.0.2.1:7443\"]\nidentity = \"id.pem\"\n")
	o.KernelModules, o.Modules = busTree(t), nil
	write(t, filepath.Join(o.KernelModules, "modules.builtin"), []byte(`kernel/drivers/net/netkit.ko
kernel/drivers/net/phy/libphy.ko
kernel/drivers/net/hyperv/hv_netvsc.ko
kernel/drivers/net/ethernet/intel/igb/igb.ko
`))
	write(t, filepath.Join(o.KernelModules, "modules.builtin.modinfo"),
		[]byte("netkit.alias=rtnl-link-netkit\x00libphy.license=GPL\x00hv_netvsc.alias=vmbus:635161f83edfc546913ff2d2f965ed0e\x00"))
	rep, err := Pack(&bytes.Buffer{}, o)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"hv_netvsc", "igb"}, rep.Network); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// A wrong --kernel-modules says what was meant.
func TestWrongDirectoryOfModulesNamesRightOne(t *testing.T) {
	right := busTree(t)
	other := filepath.Join(filepath.Dir(right), "6.1.0-gone")
	for _, dir := range []string{
		filepath.Dir(right), other, filepath.Join(right, "kernel"), filepath.Dir(filepath.Dir(filepath.Dir(right))),
		filepath.Join(right, "modules.alias"),
	} {
		_, err := OpenTree(dir)
		var te *TreeError
		if !errors.As(err, &te) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: got %v, want a TreeError that names it", dir, err)
			continue
		}
		if !strings.Contains(strings.Join(te.Hints(), "\n"), right) {
			t.Errorf("%s: hints %q do not name %s", dir, te.Hints(), right)
		}
	}
	if _, err := OpenTree(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directory: got %v", err)
	}
}

// Of a running machine, sysfs tells the modules from the card's driver up to the bridge.
func TestCardModulesOfRunningMachine(t *testing.T) {
	sys := t.TempDir()
	link := func(name, target string) {
		t.Helper()
		name = filepath.Join(sys, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	link("devices/pci0000:00/0000:00:03.0/driver", filepath.Join(sys, "bus/pci/drivers/virtio-pci"))
	link("devices/pci0000:00/0000:00:03.0/virtio0/driver", filepath.Join(sys, "bus/virtio/drivers/virtio_net"))
	link("bus/pci/drivers/virtio-pci/module", filepath.Join(sys, "module/virtio_pci"))
	link("bus/virtio/drivers/virtio_net/module", filepath.Join(sys, "module/virtio_net"))
	for _, name := range []string{"eth0", "eth1"} {
		link(filepath.Join("devices/pci0000:00/0000:00:03.0/virtio0/net", name, "device"), "../..")
		link("class/net/"+name, filepath.Join(sys, "devices/pci0000:00/0000:00:03.0/virtio0/net", name))
	}
	write(t, filepath.Join(sys, "class/net/lo/address"), nil)
	if d := cmp.Diff([]string{"virtio_pci", "virtio_net"}, CardModules(sys)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if got := CardModules(t.TempDir()); len(got) != 0 {
		t.Errorf("without sysfs: %q", got)
	}
}
