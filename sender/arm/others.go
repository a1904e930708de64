package arm

import (
	"os"
	"path/filepath"
	"strings"
)

// loaders are the services of distributions that load a capture kernel.
var loaders = []struct{ unit, what string }{
	{"kdump-tools.service", "kdump-tools of Debian"},
	{"kdump.service", "kdump of Red Hat or SUSE"},
	{"corehaul-capture.service", "the unit of a corehaul without arm"},
}

// armUnit is the unit of contrib that arms at boot.
const armUnit = "corehaul-arm.service"

// otherLoader says who may have loaded a capture kernel.
func otherLoader(root string) string {
	var found []string
	for _, l := range loaders {
		if enabled(root, l.unit) {
			found = append(found, l.unit+" ("+l.what+")")
		}
	}
	if len(found) == 0 {
		return "kexec -p, or a service that is not enabled"
	}
	return strings.Join(found, ", ")
}

// enabled reports whether systemd starts a unit at boot: some target wants it.
func enabled(root, unit string) bool {
	for _, dir := range []string{"etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"} {
		for _, kind := range []string{"wants", "requires"} {
			links, _ := filepath.Glob(filepath.Join(root, dir, "*."+kind, unit)) // the pattern is good
			if len(links) > 0 {
				return true
			}
		}
	}
	return false
}

// hasSystemd reports whether systemd runs the system: sd_booted(3).
func hasSystemd(root string) bool {
	_, err := os.Stat(filepath.Join(root, "run/systemd/system"))
	return err == nil
}
