package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Bond is a link of several interfaces (Documentation/networking/bonding.rst in the kernel tree).
type Bond struct {
	// Mode is one of BondModes.
	Mode string `toml:"mode"`
	// Ports lists names or MAC addresses of the interfaces.
	Ports []string `toml:"ports"`
}

// BondModes are the values of network.bond.mode, which are the kernel's.
var BondModes = []string{"active-backup", "802.3ad", "balance-rr", "balance-xor", "broadcast", "balance-tlb", "balance-alb"}

// maxVLAN is the largest id of a VLAN (IEEE 802.1Q).
const maxVLAN = 4094

// Route is a static route, written "PREFIX via ADDRESS".
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// UnmarshalText reads a route.
func (r *Route) UnmarshalText(b []byte) error {
	to, via, ok := strings.Cut(string(b), " via ")
	if !ok {
		return fmt.Errorf(`%q is no route (write "10.0.0.0/8 via 192.0.2.1")`, b)
	}
	p, err := netip.ParsePrefix(strings.TrimSpace(to))
	if err != nil {
		return err
	}
	a, err := netip.ParseAddr(strings.TrimSpace(via))
	switch {
	case err != nil:
		return err
	case a.Is4() != p.Addr().Is4():
		return fmt.Errorf("route %q: a network and a router of two address families", b)
	}
	*r = Route{p.Masked(), a}
	return nil
}

// MarshalText writes r as UnmarshalText reads it.
func (r Route) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String writes r as UnmarshalText reads it.
func (r Route) String() string { return fmt.Sprintf("%s via %s", r.To, r.Via) }

// checkLayers returns the first key about layers and routes with an invalid value, and why it is invalid.
func (n *Network) checkLayers() (string, error) {
	switch {
	case n.VLAN < 0 || n.VLAN > maxVLAN:
		return "network.vlan", fmt.Errorf("%d is not between 1 and %d, or 0 for none", n.VLAN, maxVLAN)
	case len(n.Bond.Ports) == 0 && n.Bond.Mode != "":
		return "network.bond.ports", errors.New("needed when network.bond.mode is set")
	case len(n.Bond.Ports) > 0 && !slices.Contains(BondModes, n.Bond.Mode):
		return "network.bond.mode", fmt.Errorf("%q is none of %s", n.Bond.Mode, strings.Join(BondModes, ", "))
	case len(n.Bond.Ports) > 0 && n.Interface != "":
		return "network.interface", errors.New("set, but the interfaces of a bond are network.bond.ports")
	case n.Mode != "static" && len(n.Routes) > 0:
		return "network.routes", fmt.Errorf("set, but network.mode is %q", n.Mode)
	}
	for _, node := range n.FenceKdump {
		if err := checkNode(node); err != nil {
			return "network.fence_kdump", err
		}
	}
	return "", nil
}

// checkNode returns what is wrong with a node of FenceKdump.
func checkNode(node string) error {
	host, port, err := net.SplitHostPort(node)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" {
		return fmt.Errorf("%q is not HOST:PORT (fence_kdump listens on port 7410)", node)
	}
	return nil
}

// overrideLayers sets what a word of the kernel command line says about layers.
func (n *Network) overrideLayers(name, value string) error {
	switch name {
	case "vlan":
		id, err := strconv.Atoi(value)
		if err != nil || id < 0 || id > maxVLAN {
			return fmt.Errorf("%q is not between 0 and %d", value, maxVLAN)
		}
		n.VLAN = id
		return nil
	case "bond":
		return oneOf(&n.Bond.Mode, value, BondModes...)
	case "ports":
		n.Interface, n.Bond.Ports = "", strings.Split(value, ",")
		return nil
	case "fence_kdump":
		list := strings.Split(value, ",")
		for _, node := range list {
			if err := checkNode(node); err != nil {
				return err
			}
		}
		n.FenceKdump = list
		return nil
	}
	return fmt.Errorf("unknown setting %q", name)
}

// setDefaults completes what a file says.
func (n *Network) setDefaults() {
	way := *n
	way.Hosts = nil // they say what a name means, not how to get there
	n.Unset = n.Mode == "" && len(way.Words()) == 0
	if n.Mode == "" {
		n.Mode = "dhcp"
	}
}

// Words returns the words of a kernel command line that make the network of an empty configuration n, without those for FenceKdump. There
// are none for DHCP on all interfaces.
func (n *Network) Words() []string {
	var list []string
	add := func(name, value string) {
		if value != "" {
			list = append(list, cmdlinePrefix+name+"="+value)
		}
	}
	if n.Mode != "dhcp" {
		add("network", n.Mode)
	}
	add("interface", n.Interface)
	add("bond", n.Bond.Mode)
	add("ports", strings.Join(n.Bond.Ports, ","))
	if n.VLAN != 0 {
		add("vlan", strconv.Itoa(n.VLAN))
	}
	if n.MTU != 0 {
		add("mtu", strconv.Itoa(n.MTU))
	}
	add("address", joined(n.Address))
	add("gateway", joined(n.Gateway))
	if len(n.Routes) > 0 {
		add("routes", `"`+joined(n.Routes)+`"`) // it has blanks
	}
	add("dns", joined(n.DNS))
	if len(n.Hosts) > 0 {
		add("hosts", `"`+joined(n.Hosts)+`"`)
	}
	return list
}

// joined writes a list as parseList reads it.
func joined[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = v.String()
	}
	return strings.Join(words, ",")
}

// Modules lists the kernel modules that the network needs beside the drivers of its cards, as the configuration's modules are
// written. Without max_bonds=0, bonding makes a bond by itself.
func (n *Network) Modules() []string {
	var list []string
	if len(n.Bond.Ports) > 0 {
		list = append(list, "bonding max_bonds=0")
	}
	if n.VLAN != 0 {
		list = append(list, "8021q")
	}
	return list
}
