package hostnet

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/config"
)

// maxHosts bounds /etc/hosts, in bytes. Some block advertisements with megabytes of it.
const maxHosts = 16 << 20

// Hosts lists what /etc/hosts of the machine says of names, without addresses of the machine itself. root is the directory of the running
// system.
func Hosts(root string, names []string) []config.Host {
	text, err := plainfile.Read(filepath.Join(root, "etc/hosts"), maxHosts)
	if err != nil {
		return nil // most machines need none
	}
	var list []config.Host
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		a, err := netip.ParseAddr(words[0])
		if err != nil || a.IsLoopback() || a.Zone() != "" {
			continue
		}
		for _, name := range names {
			if slices.ContainsFunc(words[1:], func(w string) bool { return strings.EqualFold(w, strings.TrimSuffix(name, ".")) }) {
				list = appendNew(list, config.Host{Addr: a.Unmap(), Name: name})
			}
		}
	}
	return list
}
