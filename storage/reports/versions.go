package reports

import (
	"strings"

	"golang.org/x/mod/semver"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/triage"
)

// outdated reports whether this program should make a report again: its form is an older one, or an older version made it and this
// one has not failed to. What replaces it is never outdated for the program before, so two programs on one store do not take turns.
func (r *Runner) outdated(h *dumpdir.ReportHead) bool {
	if h.ReportVersion != triage.Version {
		return h.ReportVersion < triage.Version
	}
	return newer(r.Program, h.Program) && newer(r.Program, h.Tried)
}

// newer reports whether program a, a name and a version, has a later version than b. Versions that are not semantic ones, such as
// the hash of a commit, are older than all others, and none of them is newer than another.
func newer(a, b string) bool { return semver.Compare(version(a), version(b)) > 0 }

func version(program string) string { return program[strings.LastIndexByte(program, ' ')+1:] }
