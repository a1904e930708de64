package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// bondName is the name of the bond that the configuration asks for.
	bondName = "bond0"
	// bondPoll is the time between two looks of the kernel at the carriers of a bond's ports, in milliseconds.
	bondPoll = 100
	// nameSize is IFNAMSIZ of the kernel's include/uapi/linux/if.h, one more than the longest name.
	nameSize = 16
)

// assemble makes the bond and the VLANs that the configuration asks for, of the interfaces that are there.
func (m *Manager) assemble() error {
	var errs []error
	if len(m.Config.Bond.Ports) > 0 {
		errs = append(errs, m.assembleBond())
	}
	if m.Config.VLAN != 0 {
		errs = append(errs, m.assembleVLANs())
	}
	return errors.Join(errs...)
}

// assembleBond makes the bond, and ports of the interfaces that have appeared since.
func (m *Manager) assembleBond() error {
	all, err := netlink.LinkList()
	if err != nil {
		return err
	}
	bond, err := m.bond(all)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range all {
		if a := l.Attrs(); a.MasterIndex == 0 && isNIC(l) && slices.ContainsFunc(m.Config.Bond.Ports, func(want string) bool { return named(l, want) }) {
			errs = append(errs, addPort(bond, l))
		}
	}
	return errors.Join(errs...)
}

// bond finds the bond or makes it.
func (m *Manager) bond(all []netlink.Link) (netlink.Link, error) {
	for _, l := range all {
		if l.Attrs().Name == bondName {
			return l, nil
		}
	}
	mode := byte(netlink.StringToBondMode(m.Config.Bond.Mode))
	if err := newLink(bondName, "bond", 0, option{nl.IFLA_BOND_MODE, []byte{mode}}, option{nl.IFLA_BOND_MIIMON, nl.Uint32Attr(bondPoll)}); err != nil {
		return nil, missingModule("bond "+bondName, "bonding", err)
	}
	bond, err := netlink.LinkByName(bondName)
	if err != nil {
		return nil, err
	}
	return bond, m.raise(bond)
}

// option is an attribute of a kind of interface (include/uapi/linux/if_link.h in the kernel tree).
type option struct {
	kind  int
	value []byte
}

// newLink makes an interface, on top of the one with the index parent unless that is 0. LinkAdd of the library knows all kinds,
// and would make the program 150 kB larger.
func newLink(name, kind string, parent int, options ...option) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if parent != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(parent))))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	for _, o := range options {
		data.AddRtAttr(o.kind, o.value)
	}
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// missingModule explains the error for a kind of interface that the kernel does not know.
func missingModule(what, module string, err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%s: this kernel makes none: is the module %s in the initramfs?", what, module)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// addPort makes an interface a port of the bond. The kernel takes only interfaces that are down.
func addPort(bond, port netlink.Link) error {
	err := netlink.LinkSetDown(port)
	if err == nil {
		err = netlink.LinkSetMaster(port, bond)
	}
	if err != nil {
		return fmt.Errorf("%s: port of %s: %w", port.Attrs().Name, bondName, err)
	}
	return nil
}

// assembleVLANs makes the VLAN of each suitable interface that has none yet, and raises the interface.
func (m *Manager) assembleVLANs() error {
	all, err := netlink.LinkList()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range all {
		if !m.carries(l) || slices.ContainsFunc(all, func(v netlink.Link) bool { return m.isVLANOf(v, l.Attrs().Index) }) {
			continue
		}
		errs = append(errs, m.addVLAN(l))
	}
	return errors.Join(errs...)
}

func (m *Manager) addVLAN(parent netlink.Link) error {
	if err := m.raise(parent); err != nil {
		return fmt.Errorf("%s: %w", parent.Attrs().Name, err)
	}
	a := parent.Attrs()
	if err := newLink(vlanName(a, m.Config.VLAN), "vlan", a.Index, option{nl.IFLA_VLAN_ID, nl.Uint16Attr(uint16(m.Config.VLAN))}); err != nil {
		return missingModule(fmt.Sprintf("VLAN %d of %s", m.Config.VLAN, parent.Attrs().Name), "8021q", err)
	}
	return nil
}

func vlanName(parent *netlink.LinkAttrs, id int) string {
	if name := fmt.Sprintf("%s.%d", parent.Name, id); len(name) < nameSize {
		return name
	}
	return fmt.Sprintf("vlan%d.%d", parent.Index, id)
}

// carries reports whether the addresses belong on a link, or on the VLAN of it.
func (m *Manager) carries(l netlink.Link) bool {
	want := m.Config.Interface
	switch {
	case len(m.Config.Bond.Ports) > 0:
		return l.Attrs().Name == bondName
	case l.Type() == "vlan" && m.Config.VLAN != 0:
		return false // has the address of its parent
	case want == "":
		return isNIC(l)
	}
	return l.Attrs().Flags&net.FlagLoopback == 0 && named(l, want)
}

func (m *Manager) isVLANOf(l netlink.Link, parent int) bool {
	v, ok := l.(*netlink.Vlan)
	return ok && v.VlanId == m.Config.VLAN && v.ParentIndex == parent
}

// isNIC reports whether a link is an Ethernet interface of hardware, or the end of a pair.
func isNIC(l netlink.Link) bool {
	a := l.Attrs()
	return a.Flags&net.FlagLoopback == 0 && a.EncapType == "ether" && (l.Type() == "device" || l.Type() == "veth")
}

// named reports whether a link has this name or MAC address. The ports of a bond have that of the bond, and keep their own as the
// permanent one.
func named(l netlink.Link, want string) bool {
	a := l.Attrs()
	mac, err := net.ParseMAC(want)
	return a.Name == want || strings.EqualFold(a.HardwareAddr.String(), want) || err == nil && bytes.Equal(mac, a.PermHWAddr)
}
