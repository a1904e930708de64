package hostnet

import (
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// maxResolvConf bounds a file of resolvers, in bytes.
const maxResolvConf = 64 << 10

// Resolvers lists the DNS servers of the machine, without those that run on it: the capture kernel has none. root is the directory of
// the running system.
func Resolvers(root string) []netip.Addr {
	// resolv.conf of systemd-resolved names only itself. The other file has the servers that it asks.
	for _, file := range []string{"etc/resolv.conf", "run/systemd/resolve/resolv.conf"} {
		text, err := plainfile.Read(filepath.Join(root, file), maxResolvConf)
		if err != nil {
			continue
		}
		if list := nameservers(string(text)); len(list) > 0 {
			return list
		}
	}
	return nil
}

// nameservers reads the lines "nameserver ADDRESS" (resolv.conf(5)).
func nameservers(text string) []netip.Addr {
	var list []netip.Addr
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) < 2 || w[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(w[1]); err == nil && !a.IsLoopback() && a.Zone() == "" {
			list = appendNew(list, a)
		}
	}
	return list
}
