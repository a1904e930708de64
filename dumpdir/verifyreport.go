package dumpdir

import (
	"context"
	"errors"

	"github.com/corehaul/corehaul/mem"
)

// VerifyOptions of Verify. The zero value is right.
type VerifyOptions struct {
	// Progress, when set, is called now and then with the bytes of vmcore read and to read.
	Progress func(done, total int64)
	// MaxFindings bounds Report.Findings; 0 means 1000. Counting goes on.
	MaxFindings int
	// Limit, when set, is called before each read with the number of bytes, and may wait. Its error ends the
	// verification. What is read comes from the disk then, and is not left in the system's cache.
	Limit func(ctx context.Context, n int) error
}

// Report is what a verification found.
type Report struct {
	State    State     `json:"state"`
	Progress Progress  `json:"progress"`
	SHA256   string    `json:"sha256,omitempty"` // of vmcore as it was read
	Findings []Finding `json:"findings"`         // damage, bounded by MaxFindings
	Damaged  uint64    `json:"damaged"`          // findings, the ones beyond the bound included
	Compared string    `json:"compared"`         // what with: ComparedJournal, ComparedSums or ComparedNothing
	Warnings []string  `json:"warnings,omitempty"`
}

// add notes damage: whatever else the dump is, it is damaged. Findings beyond the first most of them are counted only.
func (r *Report) add(f Finding, most int) {
	r.State = StateDamaged
	r.Damaged++
	if len(r.Findings) < most {
		r.Findings = append(r.Findings, f)
	}
}

// DamageReport returns the report on a dump of which neither journal nor manifest can be read, so that Open gave err. It is nil for
// any other error.
func DamageReport(err error) *Report {
	d, ok := errors.AsType[*DamageError](err)
	if !ok {
		return nil
	}
	return &Report{State: StateDamaged, Compared: ComparedNothing, Damaged: 1, Findings: []Finding{{File: d.File, Offset: d.Offset, Where: "journal", Text: d.Text}}}
}

// OK reports whether every byte is as it was written.
func (r *Report) OK() bool { return r.Damaged == 0 }

// Finding is one place that is damaged.
type Finding struct {
	File   string   `json:"file"`             // name in the directory
	Offset int64    `json:"offset"`           // byte in the file, -1 when the whole file is meant
	Length int64    `json:"length,omitempty"` // bytes that are wrong or cannot be trusted
	Where  string   `json:"where"`            // "main header", "2nd bitmap", "page_desc", "page", "journal"...
	Field  string   `json:"field,omitempty"`  // header field, for the headers
	PFN    *mem.PFN `json:"pfn,omitempty"`
	Chunk  *uint64  `json:"chunk,omitempty"`
	Text   string   `json:"text"` // what is wrong, for people
}
