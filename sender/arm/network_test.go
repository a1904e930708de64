package arm

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/hostnet"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

// card is the layers of one card.
func card(name, mac string) hostnet.Layers {
	return hostnet.Layers{Cards: []hostnet.Card{{Name: name, MAC: mac, Device: "class/net/" + name + "/device"}}}
}

// Ways of a machine. The card ens2 is that of machine().
var (
	leased = &hostnet.Path{Interface: "ens2", Dynamic: true, MTU: 1450, Source: prefix("192.0.2.7/24"), Layers: card("ens2", "52:54:00:00:00:02")}
	static = &hostnet.Path{
		Interface: "ens2", MTU: 1500, Source: prefix("192.0.2.7/24"), Default: addr("192.0.2.1"), Gateway: addr("192.0.2.1"), Layers: card("ens2", "52:54:00:00:00:02"),
	}
	bonded = &hostnet.Path{
		Interface: "bond0.7", MTU: 9000, Source: prefix("198.51.100.17/24"), Layers: hostnet.Layers{
			VLAN: 7, Bond: config.Bond{Mode: "active-backup", Ports: []string{"52:54:00:00:00:02", "52:54:00:00:00:03"}},
			Cards: []hostnet.Card{{Name: "ens2", Device: "class/net/ens2/device"}, {Name: "ens3", Device: "class/net/ens3/device"}},
		},
	}
)

// waysOf answers with the ways of hosts. A host without one has no route.
func waysOf(paths map[string]*hostnet.Path) Ways {
	return func(_ context.Context, host string) (*hostnet.Path, error) {
		if p := paths[host]; p != nil {
			return p, nil
		}
		return nil, fmt.Errorf("route to %s: network is unreachable", host)
	}
}

// TestWayOf: what the capture kernel gets of the network of the running system, and which targets it may not reach.
func TestWayOf(t *testing.T) {
	const staticWords = "corehaul.network=static corehaul.interface=52:54:00:00:00:02 corehaul.address=192.0.2.7/24 corehaul.gateway=192.0.2.1"
	const hosts = `corehaul.hosts="192.0.2.9 known,2001:db8::9 known"`
	ways := waysOf(map[string]*hostnet.Path{"h": static, "192.0.2.1": static, "known": static, "192.0.2.9": static, "lease": leased, "vlan": bonded, "2001:db8::9": bonded})
	for _, tc := range []struct {
		name, to, network, resolv string
		words                     string
		lost                      []Code
	}{
		{"a lease", `"tls://lease:1"`, "", "", "", nil},
		{"a static address", `"ssh://u@192.0.2.9/x"`, "", "nameserver 192.0.2.53\n", staticWords, nil},
		{"a static address, and a target with a name", `"nfs://h/e"`, "", "nameserver 192.0.2.53\n", staticWords + " corehaul.dns=192.0.2.53", nil},
		{"a name, and the only resolver is here", `"nfs://h/e"`, "", "nameserver 127.0.0.1\n", staticWords, []Code{NetworkUnknown}},
		{
			"a VLAN on a bond", `"tls://[2001:db8::9]:1"`, "", "",
			"corehaul.network=static corehaul.bond=active-backup corehaul.ports=52:54:00:00:00:02,52:54:00:00:00:03 corehaul.vlan=7 corehaul.mtu=9000 corehaul.address=198.51.100.17/24", nil,
		},
		{"no way", `"tls://192.0.2.77:1"`, "", "", "", []Code{NetworkUnknown}},
		{"no way to the first", `"tls://192.0.2.77:1", "tls://192.0.2.9:1"`, "", "", staticWords, []Code{NetworkUnknown}},
		{"another interface to the second", `"tls://192.0.2.9:1", "tls://lease:1", "tls://vlan:1"`, "", "", staticWords, []Code{NetworkPartly, NetworkPartly}},
		{"a name of /etc/hosts", `"tls://known:1"`, "", "nameserver 127.0.0.1\n", staticWords + " " + hosts, nil},
		{"a name of /etc/hosts, and no way", `"tls://known.x:1"`, "", "", `corehaul.hosts="192.0.2.9 known.x"`, []Code{NetworkUnknown}},
		{"a node of a cluster", `"file:///crash?fs=LABEL=x"`, "[network]\nfence_kdump = [\"known:7410\"]\n", "", hosts, nil},
		{
			"the configuration says the way, and another name", `"tls://known:1"`, "[network]\nmode = \"dhcp\"\nhosts = [\"192.0.2.1 own\"]\n", "",
			`corehaul.hosts="192.0.2.1 own,192.0.2.9 known,2001:db8::9 known"`, nil,
		},
		{"the configuration says what the name means", `"tls://known:1"`, "[network]\nhosts = [\"192.0.2.1 known\"]\n", "nameserver 127.0.0.1\n", staticWords, nil},
		{"a disk", `"file:///crash?fs=LABEL=x"`, "", "", "", nil},
		{"the configuration says it", `"tls://192.0.2.9:1"`, "[network]\nmode = \"dhcp\"\n", "", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := config.Parse("send.toml", []byte("to = ["+tc.to+"]\n"+tc.network))
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			put(t, root, "etc/resolv.conf", tc.resolv)
			put(t, root, "etc/hosts", "127.0.1.1 known\n192.0.2.9 own.example.net known known.x # known\n\n2001:db8::9\tKNOWN\nfe80::1%eth0 known\n")
			w := wayOf(t.Context(), root, c, ways)
			var lost []Code
			for _, l := range w.lost {
				lost = append(lost, l.code)
			}
			if got := strings.Join(w.words(), " "); got != tc.words || !slices.Equal(lost, tc.lost) {
				t.Errorf("got  %s\nwant %s\nlost %v, want %v", got, tc.words, w.lost, tc.lost)
			}
		})
	}
}

// armedBy packs the image of a machine that reaches its target in a way, and notes it as loaded.
func armedBy(t *testing.T, root string, ways Ways) *Plan {
	t.Helper()
	p, err := Prepare(t.Context(), Options{Root: root, Config: filepath.Join(root, "etc/send.toml"), Init: filepath.Join(root, "init"), Tool: "test", Ways: ways})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if err := p.Record.write(root, armedFile); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPrepareBond: a bond and a VLAN, of which one port has no carrier, go into the image with their modules and words.
func TestPrepareBond(t *testing.T) {
	root := machine(t, map[string]string{
		"etc/send.toml": "to = [\"nfs://198.51.100.1/e\"]\n[arm]\nadd = [\"nr_cpus=1\"]\n",
		"sys/devices/pci0000:00/0000:00:03.0/driver":             "-> ../../../bus/pci/drivers/e1000",
		"sys/devices/pci0000:00/0000:00:03.0/net/ens3/operstate": "down\n",
		"sys/devices/pci0000:00/0000:00:03.0/net/ens3/device":    "-> ../..",
		"sys/bus/pci/drivers/e1000/module":                       "-> ../../../../module/e1000",
		"sys/class/net/ens3":                                     "-> ../../devices/pci0000:00/0000:00:03.0/net/ens3",
		"lib/modules/" + running + "/modules.dep":                "",
		"lib/modules/" + running + "/modules.builtin": "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/net/virtio_net.ko\nkernel/drivers/net/bonding.ko\n" +
			"kernel/net/8021q.ko\nkernel/drivers/net/e1000.ko\n",
	})
	r := armedBy(t, root, waysOf(map[string]*hostnet.Path{"198.51.100.1": bonded})).Record
	for _, m := range []string{"bonding", "8021q", "virtio_net", "e1000"} {
		if !slices.Contains(r.Modules, m) {
			t.Errorf("no %s in %q", m, r.Modules)
		}
	}
	if want := "console=ttyS0 " + strings.Join(r.Network, " ") + " nr_cpus=1 corehaul.image=" + r.ID; r.Cmdline != want || len(r.Network) != 6 {
		t.Errorf("got  %s\nwant %s", r.Cmdline, want)
	}
}

// TestKeepNetwork: while no target is reached, the last copy of the same configuration counts, with the drivers of the cards.
func TestKeepNetwork(t *testing.T) {
	root := machine(t, map[string]string{
		"etc/send.toml": "to = [\"nfs://203.0.113.9/e\"]\n",
		// A second card is up, and the first one is about to lose its carrier.
		"sys/devices/pci0000:00/0000:00:03.0/net/ens3/operstate": "up\n",
		"sys/devices/pci0000:00/0000:00:03.0/net/ens3/device":    "-> ../..",
		"sys/class/net/ens3": "-> ../../devices/pci0000:00/0000:00:03.0/net/ens3",
	})
	first := armedBy(t, root, waysOf(map[string]*hostnet.Path{"203.0.113.9": static})).Record
	put(t, root, "sys/class/net/ens2/operstate", "down\n")
	p := armedBy(t, root, waysOf(nil))
	if d := cmp.Diff(first.Network, p.Record.Network); d != "" || len(first.Network) == 0 || !slices.Contains(p.Record.Modules, "virtio_net") {
		t.Errorf("-want +got\n%s\nmodules %q", d, p.Record.Modules)
	}
	if f := p.Findings(); len(f) != 1 || f[0].Code != NetworkUnknown {
		t.Errorf("findings %+v", f)
	}
	put(t, root, "etc/send.toml", "to = [\"nfs://203.0.113.10/e\"]\n")
	if r := armedBy(t, root, waysOf(nil)).Record; len(r.Network) > 0 {
		t.Errorf("another configuration has the network of the first: %q", r.Network)
	}
}

// TestLookNetwork: what has changed on the way to the targets since it was copied.
func TestLookNetwork(t *testing.T) {
	moved := *static
	moved.Source = prefix("192.0.2.8/24")
	routed := *static
	routed.Target, routed.Gateway = addr("203.0.113.9"), addr("192.0.2.2")
	const other = "to = [\"tls://203.0.113.9:1\"]\nidentity = \"id.pem\"\nlevel = 1\n"
	for _, tc := range []struct {
		name   string
		now    *hostnet.Path
		config string
		want   []Code
	}{
		{"nothing", static, "", nil},
		{"another address", &moved, "", []Code{NetworkChanged}},
		{"another route", &routed, "", []Code{NetworkChanged}},
		{"a VLAN", bonded, "", []Code{NetworkChanged, DriverMissing}},
		{"a lease", leased, "", []Code{NetworkChanged}},
		{"no way for now", nil, "", []Code{NetworkUnknown}},
		{"another configuration", &moved, other, []Code{ConfigChanged}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := machine(t, map[string]string{
				"etc/send.toml":   strings.Replace(other, "level = 1\n", "", 1),
				"etc/resolv.conf": "",
				// The port of the bond has a driver that the image lacks.
				"sys/devices/pci0000:00/0000:00:03.0/driver":             "-> ../../../bus/pci/drivers/e1000",
				"sys/devices/pci0000:00/0000:00:03.0/net/ens3/operstate": "down\n",
				"sys/devices/pci0000:00/0000:00:03.0/net/ens3/device":    "-> ../..",
				"sys/bus/pci/drivers/e1000/module":                       "-> ../../../../module/e1000",
				"sys/class/net/ens3":                                     "-> ../../devices/pci0000:00/0000:00:03.0/net/ens3",
			})
			armedBy(t, root, waysOf(map[string]*hostnet.Path{"203.0.113.9": static}))
			if tc.config != "" {
				put(t, root, "etc/send.toml", tc.config)
			}
			s, err := Look(t.Context(), root, waysOf(map[string]*hostnet.Path{"203.0.113.9": tc.now}), nil)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, codes(s)); d != "" {
				t.Errorf("-want +got\n%s\n%+v", d, s.Findings)
			}
			for _, f := range s.Findings {
				if f.What == "" || f.Do == "" {
					t.Errorf("a finding that does not say all: %+v", f)
				}
			}
		})
	}
}
