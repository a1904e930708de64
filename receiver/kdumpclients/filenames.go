package kdumpclients

import (
	"strings"
)

// isStatus reports whether a file is the status file of "kdumpctl test".
func isStatus(name string) bool { return name == "vmcore-creation.status" }

// isLog reports whether a file by this name is the log of the system kernel. Names of all clients: vmcore-dmesg-incomplete.txt,
// vmcore-dmesg.txt, dmesg, dmesg.202611250800.
func isLog(name string) bool {
	return name == "dmesg" || strings.HasPrefix(name, "dmesg.") || strings.HasPrefix(name, "vmcore-dmesg")
}

// keptName returns the name of a client's file beside the dump, without the mark of an arriving file.
func keptName(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '\\' || r > '~' {
			return '_'
		}
		return r
	}, strings.Replace(name, "-incomplete", "", 1))
	clean = strings.TrimLeft(clean, ".")
	if len(clean) > 200 {
		clean = clean[:200]
	}
	for strings.HasSuffix(clean, ".tmp") {
		clean = strings.TrimSuffix(clean, ".tmp")
	}
	if clean == "" {
		return "file"
	}
	return clean
}
