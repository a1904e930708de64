package arm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/hostnet"
)

// Ways finds the way of the running machine to a host, which is a name or an address.
type Ways func(ctx context.Context, host string) (*hostnet.Path, error)

// wayLimit bounds the search for the ways to all targets. Resolvers that do not answer use it up.
const wayLimit = 10 * time.Second

// A way is how the running machine reaches the targets.
type way struct {
	// network is the configuration of a capture kernel that reaches them in the same way.
	network config.Network
	// devices are the cards, as initrd.Options.Devices.
	devices []string
	// found means that some target has a way.
	found bool
	// lost are the targets that a capture kernel with this network may not reach.
	lost []lostTarget
}

// A lostTarget is a target, and why it may not be reached.
type lostTarget struct {
	to   string
	code Code
	why  error
}

// wayOf asks for the ways to the targets of a configuration that says nothing about the network itself. A capture kernel has the addresses
// of one interface only, unless it gets all of them by DHCP. So the first target that has a way decides, and those behind other
// interfaces are lost. If ways is nil or no target has a way, the result is DHCP on all interfaces, which needs no words.
func wayOf(ctx context.Context, root string, c *config.File, ways Ways) way {
	hosts := hostsOf(root, c)
	w := way{network: config.Network{Mode: "dhcp", Hosts: hosts}}
	if !c.Network.Unset || ways == nil {
		return w
	}
	ctx, cancel := context.WithTimeout(ctx, wayLimit)
	defer cancel()
	var paths []*hostnet.Path
	var named string // a target with a name
	for _, to := range c.To {
		if !config.NeedsNetwork(to) {
			continue
		}
		host := hostOf(to)
		if list := c.Network.AddrsOf(host); len(list) > 0 {
			host = list[0].String()
		}
		p, err := ways(ctx, host)
		switch {
		case err != nil:
			w.lose(to, NetworkUnknown, err)
			continue
		case len(paths) > 0 && !paths[0].Fits(p):
			w.lose(to, NetworkPartly, fmt.Errorf("it is behind %s, and the image has the network of %s only", p.Interface, paths[0].Interface))
			continue
		}
		paths = append(paths, p)
		if _, err := netip.ParseAddr(host); err != nil && len(w.network.AddrsOf(host)) == 0 {
			named = to
		}
	}
	w.take(root, paths, named)
	w.network.Hosts = hosts
	return w
}

// hostsOf lists the names of targets and cluster nodes that /etc/hosts has, and before them those of the configuration, whose list it
// takes the place of. It is empty if /etc/hosts has none.
func hostsOf(root string, c *config.File) []config.Host {
	var names []string
	add := func(host string) {
		if _, err := netip.ParseAddr(host); err != nil && len(c.Network.AddrsOf(host)) == 0 && !slices.Contains(names, host) {
			names = append(names, host)
		}
	}
	for _, to := range c.To {
		if config.NeedsNetwork(to) {
			add(hostOf(to))
		}
	}
	for _, node := range c.Network.FenceKdump {
		host, _, _ := net.SplitHostPort(node) // config.Parse has found it good
		add(host)
	}
	found := hostnet.Hosts(root, names)
	if len(found) == 0 {
		return nil
	}
	return slices.Concat(c.Network.Hosts, found)
}

// hostOf returns the host of a target, which config.CheckTarget has found good.
func hostOf(to string) string {
	u, err := url.Parse(to)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// errNoResolver means that a name will not be resolved.
var errNoResolver = errors.New("its name needs a DNS server, and this machine names none but itself")

// take copies the network of ways that fit each other. named is a target with a name, if there is one.
func (w *way) take(root string, paths []*hostnet.Path, named string) {
	var dns []netip.Addr
	if named != "" {
		dns = hostnet.Resolvers(root)
	}
	w.network, w.found = hostnet.Network(paths, dns), len(paths) > 0
	if w.network.Mode == "static" && named != "" && len(dns) == 0 {
		w.lose(named, NetworkUnknown, errNoResolver)
	}
	for _, p := range paths {
		for _, card := range p.Cards {
			if !slices.Contains(w.devices, card.Device) {
				w.devices = append(w.devices, card.Device)
			}
		}
	}
}

func (w *way) lose(to string, code Code, why error) {
	w.lost = append(w.lost, lostTarget{to, code, why})
}

// keep takes the network and the devices of a record.
func (w *way) keep(r *Record) {
	f := config.Default()
	f.Override(strings.Join(r.Network, " ")) // it reads what Words has written
	f.Network.Hosts = w.network.Hosts
	w.network, w.devices = f.Network, r.Devices
}

// words returns the words for the command line of the capture kernel.
func (w *way) words() []string { return w.network.Words() }

// unknown reports whether some target has no way now.
func (w *way) unknown() bool {
	return slices.ContainsFunc(w.lost, func(l lostTarget) bool { return l.code == NetworkUnknown })
}

// findings says which targets may not be reached by the image of a record.
func (w *way) findings(r *Record) []Finding {
	var list []Finding
	for _, l := range w.lost {
		f := Finding{Code: l.code, Problem: true, What: fmt.Sprintf("the capture kernel may not find the way to %s: %v", l.to, l.why)}
		f.Do = "see why this machine does not know the way, or write [network] in " + r.Config.Path + "; then " + rearm(r)
		if l.code == NetworkPartly {
			f.Do = "name the target first that matters most in " + r.Config.Path + ", or write the [network] there that reaches it; then " + rearm(r)
		}
		list = append(list, f)
	}
	return list
}
