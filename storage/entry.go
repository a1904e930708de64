package storage

import (
	"errors"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
)

// Entry is a dump in a list.
type Entry struct {
	Ref
	Path     string           `json:"path"` // directory; a URL for a store that is not local
	Manifest dumpdir.Manifest `json:"manifest"`

	Pin          *dumpdir.Pin          `json:"pin,omitempty"`          // nil: not pinned
	Verification *dumpdir.Verification `json:"verification,omitempty"` // the last one of this seal; nil: none yet
	KeptBytes    uint64                `json:"kept_bytes,omitempty"`   // of the files beside the dump
	Holes        uint64                `json:"holes,omitempty"`        // bytes of vmcore that use no space: RAM may lie at very high addresses
}

// State returns the state of the dump: that of its manifest, unless damage is known.
func (e *Entry) State() dumpdir.State {
	if e.Verification != nil && e.Verification.Damaged > 0 {
		return dumpdir.StateDamaged
	}
	return e.Manifest.State
}

// Bytes returns what the dump uses of the store, in bytes: vmcore without its holes, log and the files beside it.
func (e *Entry) Bytes() uint64 {
	vmcore := uint64(max(0, e.Manifest.Bytes.VMCore))
	return vmcore - min(vmcore, e.Holes) + uint64(max(0, e.Manifest.Bytes.Log)) + e.KeptBytes
}

// When returns the time by which dumps are sorted: the time of the crash, or of the arrival if that is not known.
func (e *Entry) When() time.Time {
	if e.Manifest.CrashTime != nil {
		return *e.Manifest.CrashTime
	}
	return e.Manifest.StartTime
}

// ReadSides fills in Pin and Verification from the side files in the directory e.Path. A pin that cannot be read counts as a pin.
func (e *Entry) ReadSides(fsys dumpdir.FS) {
	var err error
	if e.Pin, err = dumpdir.ReadSideFile[dumpdir.Pin](fsys, e.Path); err != nil {
		e.Pin = &dumpdir.Pin{Version: dumpdir.SideFileVersion, Reason: "the pin cannot be read: " + err.Error()}
	}
	v, err := dumpdir.ReadSideFile[dumpdir.Verification](fsys, e.Path)
	if err == nil && v != nil && v.Of(&e.Manifest) && e.Manifest.State != dumpdir.StateArriving {
		e.Verification = v
	}
}

// Details is an entry with more facts from the directory of the dump. "corehaul show --json" prints it.
type Details struct {
	Entry
	Files  []dumpdir.KeptFile `json:"files,omitempty"`  // beside the dump
	Erased []string           `json:"erased,omitempty"` // what makedumpfile erased, in its words
}

// DetailsOf returns the details of dump d, whose entry is e. It leaves out a damaged list of files, which verify reports.
func DetailsOf(e Entry, d *dumpdir.Dump) (Details, error) {
	files, err := d.Kept()
	if _, ok := errors.AsType[*dumpdir.DamageError](err); ok {
		files, err = nil, nil
	}
	return Details{Entry: e, Files: files, Erased: d.Erased()}, err
}
