package dumpdir

import (
	"context"
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// VerifyOptions of Verify. The zero value is valid.
type VerifyOptions struct {
	// Progress, if set, is called at intervals with the number of bytes of vmcore read and to read.
	Progress func(done, total int64)
	// MaxFindings bounds Report.Findings; 0 means 1000. Report.Damaged counts all.
	MaxFindings int
	// Limit, if set, is called before each read with the number of bytes, and may wait. Its error ends the
	// verification. Then reads come from the disk and leave nothing in the page cache.
	Limit func(ctx context.Context, n int) error
}

// Report is the result of a verification.
type Report struct {
	State    State     `json:"state"`
	Progress Progress  `json:"progress"`
	SHA256   string    `json:"sha256,omitempty"` // of the vmcore that was read
	Findings []Finding `json:"findings"`         // at most MaxFindings places
	Damaged  uint64    `json:"damaged"`          // number of all places
	Compared string    `json:"compared"`         // ComparedJournal, ComparedSums or ComparedNothing
	Warnings []string  `json:"warnings,omitempty"`
}

// add adds a finding and sets the state to damaged. It only counts findings beyond the first most.
func (r *Report) add(f Finding, most int) {
	r.State = StateDamaged
	r.Damaged++
	if len(r.Findings) < most {
		r.Findings = append(r.Findings, f)
	}
}

// DamageReport returns the report on a dump if err of Open says that neither journal nor manifest can be read, else
// nil.
func DamageReport(err error) *Report {
	d, ok := errors.AsType[*DamageError](err)
	if !ok {
		return nil
	}
	return &Report{State: StateDamaged, Compared: ComparedNothing, Damaged: 1, Findings: []Finding{{File: d.File, Offset: d.Offset, Where: "journal", Text: d.Text}}}
}

// OK reports whether no damage was found.
func (r *Report) OK() bool { return r.Damaged == 0 }

// Finding is one damaged place.
type Finding struct {
	File   string   `json:"file"`             // name in the directory
	Offset int64    `json:"offset"`           // offset in the file, in bytes; -1 for the whole file
	Length int64    `json:"length,omitempty"` // number of bytes that are wrong or cannot be trusted
	Where  string   `json:"where"`            // "main header", "2nd bitmap", "page_desc", "page", "journal"...
	Field  string   `json:"field,omitempty"`  // of a header
	PFN    *mem.PFN `json:"pfn,omitempty"`
	Chunk  *uint64  `json:"chunk,omitempty"`
	Text   string   `json:"text"` // what is wrong, for people
}

// String names the damaged place and says what is wrong: file, offset, and what lies there. It has texts of the dump.
func (f Finding) String() string {
	line := f.File
	if f.Offset >= 0 {
		line += fmt.Sprintf(": offset %d", f.Offset)
	}
	line += ": " + f.Where
	if f.Field != "" {
		line += " " + f.Field
	}
	if f.PFN != nil {
		line += fmt.Sprintf(", pfn %d", uint64(*f.PFN))
	}
	if f.Chunk != nil {
		line += fmt.Sprintf(", chunk %d", *f.Chunk)
	}
	return line + ": " + f.Text
}
