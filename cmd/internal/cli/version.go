package cli

import (
	"runtime/debug"
	"strings"
)

// Version returns the version of this program as the Go toolchain stamped it: the
// module's version, or the revision it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	version := "devel"
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			version += "-" + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			version = strings.TrimSuffix(version, "+dirty") + "+dirty"
		}
	}
	return version
}
