package storage

import "github.com/corehaul/corehaul/dumpdir"

// Substance says how much of the crashed machine's memory a dump has for sure. A larger one is better.
type Substance int

// The substance of dumps.
const (
	NoPages        Substance = iota // none, or nobody knows: the dump is damaged, or still arriving
	SomePages                       // some pages, maybe too few for crash
	EssentialPages                  // all that crash needs
	AllPages                        // all pages of the plan
)

// Substance returns that of the dump.
func (e *Entry) Substance() Substance {
	m := &e.Manifest
	essential := uint64(0)
	if m.Plan != nil {
		essential = m.Plan.Classes[dumpdir.EssentialPages]
	}
	switch state := e.State(); {
	case m.Pages.Present == 0:
		return NoPages
	case state == dumpdir.StateComplete:
		return AllPages
	case state != dumpdir.StatePartial:
		return NoPages
	case essential > 0 && m.Pages.Present >= essential:
		return EssentialPages
	}
	return SomePages
}
