package crashtree

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/corehaul/corehaul/hostname"
)

// NoHostError says that nothing names the host of a dump.
type NoHostError struct{ Err error }

// Error says why there is no name.
func (e *NoHostError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *NoHostError) Unwrap() error { return e.Err }

// Hints says what to do next.
func (e *NoHostError) Hints() []string {
	return []string{"--host NAME says whose dumps these are; import dumps of several hosts one by one"}
}

// Sources of a host's name, in Outcome.HostFrom.
const (
	fromOption    = "option"
	fromNodename  = "nodename"
	fromDirectory = "directory"
	fromDump      = "dump" // a dump directory, by its own word
)

// unnamed is the nodename of a kernel that has got no name (init/version.c, UTS_NODENAME).
const unnamed = "(none)"

// isCommon reports whether a nodename is that of many machines: an installer's, or a live system's.
func isCommon(nodename string) bool {
	return nodename == "localhost" || strings.HasPrefix(nodename, "localhost.")
}

// nameHost finds the host of the dump. The first name counts that is the name of a host.
func (p *pending) nameHost() error {
	inDir, _ := ofDirectory(p.o.Dir)
	type source struct{ name, from string }
	said := []source{{p.facts.Utsname.Nodename, fromNodename}, {inDir, fromDirectory}}
	switch {
	case p.Host != "":
		said = []source{{p.Host, fromOption}}
	case isCommon(said[0].name):
		said[0], said[1] = said[1], said[0]
	}
	var why error // the first name is none
	for _, s := range said {
		if s.name == "" || s.name == unnamed {
			continue
		}
		err := hostname.Check(s.name)
		if err == nil {
			p.out.Host, p.out.HostFrom = s.name, s.from
			return nil
		}
		why = cmp.Or(why, fmt.Errorf("its %s says: %w", s.from, err))
	}
	return &NoHostError{cmp.Or(why, errors.New("neither the dump nor the name of its directory says which host it is of"))}
}
