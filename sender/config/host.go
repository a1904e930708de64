package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Host is an address of a name, written "ADDRESS NAME" as in /etc/hosts.
type Host struct {
	Addr netip.Addr
	Name string
}

// UnmarshalText reads a host.
func (h *Host) UnmarshalText(b []byte) error {
	words := strings.Fields(string(b))
	if len(words) != 2 || strings.ContainsAny(words[1], ",\"") {
		return fmt.Errorf(`%q is no host (write "192.0.2.9 collector.example.net")`, b)
	}
	a, err := netip.ParseAddr(words[0])
	if err != nil {
		return err
	}
	*h = Host{a.Unmap(), words[1]}
	return nil
}

// MarshalText writes h as UnmarshalText reads it.
func (h Host) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// String writes h as UnmarshalText reads it.
func (h Host) String() string { return h.Addr.String() + " " + h.Name }

// AddrsOf returns the addresses that Hosts has for a name.
func (n *Network) AddrsOf(name string) []netip.Addr {
	var list []netip.Addr
	for _, h := range n.Hosts {
		if strings.EqualFold(strings.TrimSuffix(h.Name, "."), strings.TrimSuffix(name, ".")) {
			list = append(list, h.Addr)
		}
	}
	return list
}
