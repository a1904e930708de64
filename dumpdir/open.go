package dumpdir

import (
	"context"
	"io"

	"github.com/corehaul/corehaul/mem"
)

// Dump is a dump directory open for reading, sealed or arriving.
type Dump struct{}

// Open opens the dump in dir. A damaged manifest does not keep it from opening: what
// the journal knows is filled in and ManifestError tells. The error matches ErrNotExist.
func Open(fsys FS, dir string) (*Dump, error) { return nil, errNotYet }

// Dir returns the directory.
func (d *Dump) Dir() string { return "" }

// Manifest returns the manifest, with state and counts brought up to what the journal says.
func (d *Dump) Manifest() *Manifest { return nil }

// Damage returns what Open found wrong with manifest or journal, nil when nothing.
func (d *Dump) Damage() error { return nil }

// State returns the state that the journal gives.
func (d *Dump) State() State { return "" }

// Progress returns the durable counts.
func (d *Dump) Progress() Progress { return Progress{} }

// VMCorePath returns the name of vmcore or vmcore-incomplete, with the directory;
// ok is false for a dump without pages.
func (d *Dump) VMCorePath() (path string, ok bool) { return "", false }

// OpenVMCore opens the vmcore for reading, complete or not.
func (d *Dump) OpenVMCore() (File, error) { return nil, errNotYet }

// OpenLog opens vmcore-dmesg.txt. The error matches fs.ErrNotExist when there is none.
func (d *Dump) OpenLog() (io.ReadCloser, error) { return nil, errNotYet }

// Close closes the dump.
func (d *Dump) Close() error { return nil }

// VerifyOptions of Verify. The zero value is right.
type VerifyOptions struct {
	// Progress, when set, is called now and then with the bytes of vmcore read and to read.
	Progress func(done, total int64)
	// MaxFindings bounds Report.Findings; 0 means 1000. Counting goes on.
	MaxFindings int
	// ScratchDir is where the expected front of a large dump is built; empty means os.TempDir().
	ScratchDir string
}

// Report is what a verification found.
type Report struct {
	State    State     `json:"state"`
	Progress Progress  `json:"progress"`
	SHA256   string    `json:"sha256,omitempty"` // of vmcore as it was read
	Findings []Finding `json:"findings"`         // damage, bounded by MaxFindings
	Damaged  uint64    `json:"damaged"`          // findings, the ones beyond the bound included
	Warnings []string  `json:"warnings,omitempty"`
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

// Verify reads every byte of the dump again, in constant memory, and compares it with what the
// journal says it has to be. The error is for a verification that could not be done;
// damage is in the report.
func (d *Dump) Verify(ctx context.Context, opts VerifyOptions) (*Report, error) {
	return nil, errNotYet
}

// VerifyFile verifies a dump file without a directory around it: every page is read and
// decoded. path is any file that vmcore/dumpfile opens.
func VerifyFile(ctx context.Context, path string, opts VerifyOptions) (*Report, error) {
	return nil, errNotYet
}
