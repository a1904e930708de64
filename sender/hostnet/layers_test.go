package hostnet

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/corehaul/corehaul/sender/config"
)

// machine is a machine with interfaces, of which those in cards have hardware.
type machine struct {
	links []netlink.Link
	sys   string
}

func (m *machine) attrs(name string, below, master int) netlink.LinkAttrs {
	index := len(m.links) + 1
	mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, byte(index)}
	return netlink.LinkAttrs{Name: name, Index: index, ParentIndex: below, MasterIndex: master, HardwareAddr: mac, EncapType: "ether"}
}

func (m *machine) add(l netlink.Link) int {
	m.links = append(m.links, l)
	return len(m.links)
}

// card adds an interface of hardware.
func (m *machine) card(t *testing.T, name string, master int) int {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(m.sys, "class/net", name, "device"), 0o755); err != nil {
		t.Fatal(err)
	}
	return m.add(&netlink.Device{LinkAttrs: m.attrs(name, 0, master)})
}

func (m *machine) vlan(name string, id, below, master int) int {
	return m.add(&netlink.Vlan{LinkAttrs: m.attrs(name, below, master), VlanId: id})
}

func (m *machine) bond(name, mode string, master int) int {
	b := netlink.NewLinkBond(m.attrs(name, 0, master))
	b.Mode = netlink.StringToBondMode(mode)
	return m.add(b)
}

// port adds a port of a bond, which has the bond's address and another one of its own.
func (m *machine) port(t *testing.T, name string, bond int) {
	t.Helper()
	i := m.card(t, name, bond)
	a := m.links[i-1].Attrs()
	a.Slave = &netlink.BondSlave{PermHardwareAddr: net.HardwareAddr{0x52, 0x54, 0, 0, 1, byte(i)}}
	a.HardwareAddr = m.links[bond-1].Attrs().HardwareAddr
}

func TestLayers(t *testing.T) {
	for name, tc := range map[string]struct {
		make func(t *testing.T, m *machine) (index int)
		want Layers
		err  string
	}{
		"card": {make: func(t *testing.T, m *machine) int { t.Helper(); return m.card(t, "ens3", 0) }, want: Layers{
			Cards: []Card{{"ens3", "52:54:00:00:00:01", "class/net/ens3/device"}},
		}},
		"VLAN on a bond, in a bridge beside a virtual machine": {make: func(t *testing.T, m *machine) int {
			t.Helper()
			bridge := m.add(&netlink.Bridge{LinkAttrs: m.attrs("br0", 0, 0)})
			bond := m.bond("bond0", "802.3ad", 0)
			m.vlan("bond0.7", 7, bond, bridge)
			m.add(&netlink.Tuntap{LinkAttrs: m.attrs("vnet0", 0, bridge)})
			m.port(t, "ens3", bond)
			m.port(t, "ens4", bond)
			return bridge
		}, want: Layers{
			VLAN: 7, Bridge: "br0", Bond: config.Bond{Mode: "802.3ad", Ports: []string{"52:54:00:00:01:05", "52:54:00:00:01:06"}},
			Cards: []Card{{"ens3", "52:54:00:00:01:05", "class/net/ens3/device"}, {"ens4", "52:54:00:00:01:06", "class/net/ens4/device"}},
		}},
		"bridge with two cards": {make: func(t *testing.T, m *machine) int {
			t.Helper()
			bridge := m.add(&netlink.Bridge{LinkAttrs: m.attrs("br0", 0, 0)})
			m.card(t, "ens3", bridge)
			m.card(t, "ens4", bridge)
			return bridge
		}, err: "br0: the bridge has several ports"},
		"bridge without a card": {make: func(_ *testing.T, m *machine) int {
			return m.add(&netlink.Bridge{LinkAttrs: m.attrs("br0", 0, 0)})
		}, err: "br0: the bridge has no port"},
		"bond without ports": {make: func(_ *testing.T, m *machine) int { return m.bond("bond0", "balance-rr", 0) }, err: "bond0: the bond has no ports"},
		"VLAN of a VLAN": {make: func(t *testing.T, m *machine) int {
			t.Helper()
			return m.vlan("ens3.7.8", 8, m.vlan("ens3.7", 7, m.card(t, "ens3", 0), 0), 0)
		}, err: "ens3.7: VLAN 7 carries another VLAN, 8"},
		"WireGuard": {make: func(_ *testing.T, m *machine) int {
			return m.add(&netlink.Wireguard{LinkAttrs: m.attrs("wg0", 0, 0)})
		}, err: `wg0: the capture kernel has no interface of the kind "wireguard"`},
		"loopback": {make: func(_ *testing.T, m *machine) int {
			a := m.attrs("lo", 0, 0)
			a.Flags = net.FlagLoopback
			return m.add(&netlink.Device{LinkAttrs: a})
		}, err: "lo: the target is this machine"},
		"the lower interface is elsewhere": {make: func(_ *testing.T, m *machine) int { return m.vlan("eth0.7", 7, 99, 0) }, err: "eth0.7: the interface below it is not there"},
		"a circle": {make: func(_ *testing.T, m *machine) int {
			bridge := m.add(&netlink.Bridge{LinkAttrs: m.attrs("br0", 0, 0)})
			m.vlan("br0.7", 7, bridge, bridge)
			return bridge
		}, err: "carries another VLAN"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &machine{sys: t.TempDir()}
			index := tc.make(t, m)
			got, err := layersBelow(m.sys, m.links, index)
			if tc.err != "" {
				if le, ok := errors.AsType[*LayerError](err); !ok || !strings.Contains(le.Error(), tc.err) {
					t.Errorf("got %v, want %q", err, tc.err)
				}
				return
			}
			if d := cmp.Diff(tc.want, got); d != "" || err != nil {
				t.Errorf("%v; -want +got\n%s", err, d)
			}
		})
	}
}
