package hostnet

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/corehaul/corehaul/sender/config"
)

// Layers are what lies between an interface with an address and hardware.
type Layers struct {
	// VLAN is its id, 0 for none.
	VLAN int
	// Bond has no ports if there is none. Its ports are MAC addresses.
	Bond config.Bond
	// Bridge is the name of a bridge, which a capture kernel does without.
	Bridge string
	// Cards are the network cards: one, or the ports of the bond.
	Cards []Card
}

// A Card is an interface of hardware.
type Card struct {
	// Name is that in the running system. MAC is the permanent address, with which another kernel finds the card.
	Name, MAC string
	// Device is its directory below sysfs, for initrd.Options.Devices.
	Device string
}

// LayerError says that a capture kernel cannot make an interface again.
type LayerError struct {
	Interface, Why string
}

// Error names the interface.
func (e *LayerError) Error() string { return fmt.Sprintf("%s: %s", e.Interface, e.Why) }

// Hints says what to do.
func (e *LayerError) Hints() []string {
	return []string{"write the [network] of the capture kernel by hand: interface, vlan or bond of a card that reaches the target"}
}

// maxLayers bounds the walk down. Deeper stacks than bridge, VLAN, bond and card are not in use.
const maxLayers = 8

// layersBelow walks from an interface down to its cards.
func layersBelow(sys string, links []netlink.Link, index int) (Layers, error) {
	var found Layers
	name := fmt.Sprintf("interface %d", index)
	for range maxLayers {
		i := indexOf(links, index)
		if i < 0 {
			// The lower interface of a container's is in another namespace.
			return found, &LayerError{name, "the interface below it is not there"}
		}
		l := links[i]
		name = l.Attrs().Name
		next, err := found.add(sys, links, l)
		if err != nil || next == 0 {
			return found, err
		}
		index = next
	}
	return found, &LayerError{name, fmt.Sprintf("more than %d interfaces on top of each other", maxLayers)}
}

// add notes one layer. It returns the index of the next one below, 0 at the cards.
func (f *Layers) add(sys string, links []netlink.Link, l netlink.Link) (next int, err error) {
	a := l.Attrs()
	switch l := l.(type) {
	case *netlink.Vlan:
		if f.VLAN != 0 {
			return 0, &LayerError{a.Name, fmt.Sprintf("VLAN %d carries another VLAN, %d", l.VlanId, f.VLAN)}
		}
		f.VLAN = l.VlanId
		return a.ParentIndex, nil
	case *netlink.Bridge:
		f.Bridge = a.Name
		return portWithCard(sys, links, a)
	case *netlink.Bond:
		return 0, f.addBond(sys, links, l)
	}
	c, ok := cardOf(sys, a)
	switch {
	case a.Flags&net.FlagLoopback != 0:
		return 0, &LayerError{a.Name, "the target is this machine"}
	case !ok:
		return 0, &LayerError{a.Name, fmt.Sprintf("the capture kernel has no interface of the kind %q", l.Type())}
	}
	f.Cards = []Card{c}
	return 0, nil
}

// portWithCard finds the one port of a bridge that leads out of the machine. The others are those of virtual machines.
func portWithCard(sys string, links []netlink.Link, bridge *netlink.LinkAttrs) (index int, err error) {
	for _, l := range links {
		a := l.Attrs()
		if a.MasterIndex != bridge.Index {
			continue
		}
		_, card := cardOf(sys, a)
		if card || l.Type() == "vlan" || l.Type() == "bond" {
			if index != 0 {
				return 0, &LayerError{bridge.Name, "the bridge has several ports with hardware, and only one of them may lead to the target"}
			}
			index = a.Index
		}
	}
	if index == 0 {
		return 0, &LayerError{bridge.Name, "the bridge has no port with hardware"}
	}
	return index, nil
}

func (f *Layers) addBond(sys string, links []netlink.Link, bond *netlink.Bond) error {
	f.Bond.Mode = bond.Mode.String()
	for _, l := range links {
		a := l.Attrs()
		if a.MasterIndex != bond.Index {
			continue
		}
		c, ok := cardOf(sys, a)
		if !ok {
			return &LayerError{a.Name, fmt.Sprintf("a port of %s without hardware", bond.Name)}
		}
		f.Cards = append(f.Cards, c)
		f.Bond.Ports = append(f.Bond.Ports, c.MAC)
	}
	if len(f.Cards) == 0 {
		return &LayerError{bond.Name, "the bond has no ports"}
	}
	return nil
}

// cardOf reports whether an interface has hardware below it, which includes that of a virtual machine.
func cardOf(sys string, a *netlink.LinkAttrs) (Card, bool) {
	device := filepath.Join("class/net", a.Name, "device")
	if _, err := os.Stat(filepath.Join(sys, device)); err != nil {
		return Card{}, false
	}
	return Card{Name: a.Name, MAC: permanentMAC(a).String(), Device: device}, true
}

// permanentMAC returns the address that the card has by itself. A port of a bond has that of the bond.
func permanentMAC(a *netlink.LinkAttrs) net.HardwareAddr {
	if port, ok := a.Slave.(*netlink.BondSlave); ok && len(port.PermHardwareAddr) > 0 {
		return port.PermHardwareAddr
	}
	if len(a.PermHWAddr) > 0 {
		return a.PermHWAddr
	}
	return a.HardwareAddr
}

// indexOf returns the place of an interface in a list, -1 if it is not there.
func indexOf(links []netlink.Link, index int) int {
	return slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Index == index })
}
