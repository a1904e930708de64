package storage

import (
	"cmp"
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

	// Kind and Title are those of the crash, by the last report of this seal. Until there is one, they are by the log. They are
	// empty if there is neither, Title also if the log shows no crash.
	Kind        string `json:"kind,omitempty"`
	Title       string `json:"title,omitempty"`
	ReportOf    string `json:"report_of,omitempty"`    // what Kind, Title and Signatures are by: dumpdir.ReportOfDump or ReportOfLog
	ReportBytes uint64 `json:"report_bytes,omitempty"` // length of report.json

	// Signatures name the crash, by the same report as Kind and Title.
	Signatures dumpdir.Signatures `json:"signatures,omitzero"`

	// Report is what report.json says of itself, nil if there is none or it is invalid. It may be of an earlier state of the dump.
	Report *dumpdir.ReportHead `json:"-"`
	// ReportError says why report.json is invalid.
	ReportError error `json:"-"`
}

// State returns the state of the dump: that of its manifest, unless damage is known.
func (e *Entry) State() dumpdir.State {
	if e.Verification != nil && e.Verification.Damaged > 0 {
		return dumpdir.StateDamaged
	}
	return e.Manifest.State
}

// Bytes returns what the dump uses of the store, in bytes: vmcore without its holes, log, report and the files beside it.
func (e *Entry) Bytes() uint64 {
	vmcore := uint64(max(0, e.Manifest.Bytes.VMCore))
	return vmcore - min(vmcore, e.Holes) + uint64(max(0, e.Manifest.Bytes.Log)) + e.KeptBytes + e.ReportBytes
}

// Headline says in one line what crashed: the title, or else the panic line. It is empty if neither is known.
func (e *Entry) Headline() string { return cmp.Or(e.Title, e.Manifest.PanicLine) }

// Signature returns the one by which the dump is grouped with others of the same crash, nil if there is none.
func (e *Entry) Signature() *dumpdir.Signature { return e.Signatures.Best() }

// When returns the time by which dumps are sorted: the time of the crash, or of the arrival if that is not known.
func (e *Entry) When() time.Time {
	if e.Manifest.CrashTime != nil {
		return *e.Manifest.CrashTime
	}
	return e.Manifest.StartTime
}

// ReadSides fills in what comes from the side files in the directory e.Path. A pin that cannot be read counts as a pin.
func (e *Entry) ReadSides(fsys dumpdir.FS) {
	var err error
	if e.Pin, err = dumpdir.ReadSideFile[dumpdir.Pin](fsys, e.Path); err != nil {
		e.Pin = &dumpdir.Pin{Version: dumpdir.SideFileVersion, Reason: "the pin cannot be read: " + err.Error()}
	}
	v, err := dumpdir.ReadSideFile[dumpdir.Verification](fsys, e.Path)
	if err == nil && v != nil && v.Of(&e.Manifest) && e.Manifest.State != dumpdir.StateArriving {
		e.Verification = v
	}
	e.ReadReport(fsys)
}

// ReadReport fills in what comes from report.json in the directory e.Path.
func (e *Entry) ReadReport(fsys dumpdir.FS) {
	h, size, err := dumpdir.ReadReportHead(fsys, e.Path)
	e.Kind, e.Title, e.ReportOf, e.ReportBytes, e.Report, e.ReportError = "", "", "", uint64(size), h, err
	e.Signatures = dumpdir.Signatures{}
	if h != nil && (h.Describes(&e.Manifest) || h.OfLog(&e.Manifest)) {
		e.Kind, e.Title, e.ReportOf, e.Signatures = h.Kind, h.Title, h.Of, h.Signatures
	}
}

// Details is an entry with more facts from the directory of the dump. "corehaul show --json" prints it.
type Details struct {
	Entry
	Files  []dumpdir.KeptFile `json:"files,omitempty"`  // beside the dump
	Erased []string           `json:"erased,omitempty"` // what makedumpfile erased, in its words
	// Finished says that the arriving dump is complete, and only its seal is left.
	Finished bool `json:"finished,omitempty"`
}

// DetailsOf returns the details of dump d, whose entry is e. It leaves out a damaged list of files, which verify reports.
func DetailsOf(e Entry, d *dumpdir.Dump) (Details, error) {
	files, err := d.Kept()
	if _, ok := errors.AsType[*dumpdir.DamageError](err); ok {
		files, err = nil, nil
	}
	finished, ferr := d.Finished()
	return Details{Entry: e, Files: files, Erased: d.Erased(), Finished: finished}, errors.Join(err, ferr)
}
