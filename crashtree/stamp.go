package crashtree

import (
	"net/netip"
	"path/filepath"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// stamped matches the names that kdump gives to a directory, with the host or its address: ADDRESS-2026-11-25-08:00:00 (Red Hat),
// HOST-202611250800 (Debian), HOST-2026-11-25-08-00 (SUSE). Debian and SUSE leave the host out on a disk of their own.
var stamped = lazyregexp.New(`^(?:(.+)-)?(?:[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{2}:[0-9]{2}(?::[0-9]{2})?|[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{2}-[0-9]{2}|[0-9]{12})$`)

// ofDirectory returns the host in the name of a directory, and whether kdump made the name. The host is empty if there is none, or if it is
// an address of every machine: Red Hat's kdump writes 127.0.0.1 on a disk of its own.
func ofDirectory(path string) (host string, made bool) {
	m := stamped.FindStringSubmatch(filepath.Base(path))
	if m == nil {
		return "", false
	}
	if a, err := netip.ParseAddr(m[1]); err == nil && (a.IsLoopback() || a.IsUnspecified()) {
		return "", true
	}
	return m[1], true
}
