package dumpcopy

import (
	"strings"
)

// IsStatus reports whether a file is the status file of "kdumpctl test".
func IsStatus(name string) bool { return name == "vmcore-creation.status" }

// IsLog reports whether a file by this name is the log of the system kernel. Names of all clients: vmcore-dmesg-incomplete.txt,
// vmcore-dmesg.txt, dmesg, dmesg.202611250800.
func IsLog(name string) bool {
	return name == "dmesg" || strings.HasPrefix(name, "dmesg.") || strings.HasPrefix(name, "vmcore-dmesg")
}

// IsDump reports whether kdump uses this name for a dump: vmcore, vmcore-incomplete, vmcore.flat, dump-incomplete.gz,
// dump.202611250800.
func IsDump(name string) bool {
	return (strings.HasPrefix(name, "vmcore") || strings.HasPrefix(name, "dump")) && !IsLog(name) && !IsStatus(name)
}

// Marks of names that a file has until it is whole: of kdump, and of programs that copy files.
const (
	markKdump = "-incomplete"
	markCopy  = ".part"
)

// IsUnfinished reports whether kdump, or a program that copies, gives this name to a file until it is whole.
func IsUnfinished(name string) bool {
	return strings.Contains(name, markKdump) || strings.HasSuffix(name, markCopy)
}

// FinishedName returns the name that an unfinished file gets in the end, or how that begins.
func FinishedName(name string) string {
	name, _, _ = strings.Cut(strings.TrimSuffix(name, markCopy), markKdump)
	return name
}

// KeptName returns the name of a file of kdump beside the dump, without the mark of an unfinished file.
func KeptName(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == '\\' || r > '~' {
			return '_'
		}
		return r
	}, strings.Replace(name, markKdump, "", 1))
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
