package storage

import (
	"cmp"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
)

// Sighting is what a list of crashes needs to know of one dump. The index has all of it.
type Sighting struct {
	Ref
	At        time.Time // When of the entry, in milliseconds
	State     dumpdir.State
	Release   string
	Title     string
	PanicLine string

	// Signature is the id of the one by which the dump is grouped, empty if it has none.
	Signature string
	// Vague says that no place in the code is in it, so that different crashes may have it.
	Vague bool
	// Linked is the id of the dump's other signature, empty if it is the same, or if one of the two is vague.
	Linked string
}

// Sighting returns the one of an entry.
func (e *Entry) Sighting() Sighting {
	m := &e.Manifest
	s := Sighting{
		Ref: e.Ref, At: time.UnixMilli(e.When().UnixMilli()).UTC(), State: m.State, Release: m.Release, Title: e.Title, PanicLine: m.PanicLine,
	}
	best := e.Signature()
	if best == nil {
		return s
	}
	s.Signature, s.Vague = best.ID, !best.NamesPlace()
	if log, memory := e.Signatures.Log, e.Signatures.Memory; log.NamesPlace() && memory.NamesPlace() && log.ID != memory.ID {
		s.Linked = memory.ID
	}
	return s
}

// Headline is that of the entry.
func (s *Sighting) Headline() string { return cmp.Or(s.Title, s.PanicLine) }

// Before reports whether the dump of s is older than that of t in lists: Sightings gives t first.
func (s *Sighting) Before(t *Sighting) bool { return s.Compare(t) < 0 }

// Compare is the order of dumps by time, then by host and id.
func (s *Sighting) Compare(t *Sighting) int {
	return cmp.Or(s.At.Compare(t.At), cmp.Compare(s.Host, t.Host), cmp.Compare(s.ID, t.ID))
}
