package dumpdir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"
)

// ReportName is the side file that says what crashed.
const ReportName = "report.json"

const (
	// maxReportLen bounds report.json, in bytes. The report of a machine with 512 CPUs has 1 to 4 MiB, half of it indentation.
	maxReportLen = 8 << 20
	// maxReportHead bounds what stands before the report: six texts of maxText bytes and the words of two signatures, of which
	// JSON makes up to six times as many, and a few numbers and times.
	maxReportHead = 64 << 10
)

// What a report is of, in ReportHead.Of.
const (
	ReportOfLog  = "log"  // of the log of a dump that was arriving
	ReportOfDump = "dump" // of a sealed dump
)

// reportKey is the member of report.json that has the report. It is the last one, so that lists need not read it.
const reportKey = "report"

// reportEnd ends report.json and no shorter beginning of it: only the last brace stands at the start of a line.
const reportEnd = "\n}\n"

// ReportHead is what report.json says of its report.
type ReportHead struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`    // when it was made
	Program string    `json:"program"` // name and version of the program that made it
	Of      string    `json:"of"`      // ReportOfLog or ReportOfDump
	// Sealed and SHA256 are those of the manifest. They name the seal that a ReportOfDump is of.
	Sealed *time.Time `json:"sealed,omitempty"`
	SHA256 string     `json:"sha256,omitempty"`
	// LogBytes is the length of the log that a ReportOfLog was made from.
	LogBytes      int64  `json:"log_bytes"`
	ReportVersion int    `json:"report_version"` // of the form of the report
	Kind          string `json:"kind"`           // as in the report
	Title         string `json:"title"`          // as in the report
	// Signatures are those of the report.
	Signatures Signatures `json:"signatures,omitzero"`
	// Failed says why the dump could not be read. The report then has what the log says, if that could be read.
	Failed string `json:"failed,omitempty"`
	// Tried is the program that could not make a report in the place of this one, as Program names it.
	Tried string `json:"tried,omitempty"`
}

// StoredReport is report.json: a report about the dump, in a form that this package does not know, and what it is of.
type StoredReport struct {
	ReportHead

	Report json.RawMessage `json:"report"` // an object
}

// NewStoredReport returns a report about the dump as m says that it is. h has Program, ReportVersion, Kind, Title, Signatures and Failed.
func NewStoredReport(m *Manifest, h ReportHead, report json.RawMessage, now time.Time) *StoredReport {
	h.Version, h.Time, h.Of, h.LogBytes = SideFileVersion, now.UTC().Truncate(time.Second), ReportOfLog, m.Bytes.Log
	if m.State != StateArriving {
		h.Of, h.Sealed, h.SHA256 = ReportOfDump, m.EndTime, m.SHA256
	}
	for _, s := range h.texts() {
		*s = clean(*s, maxText)
	}
	h.Signatures = Signatures{Log: h.Signatures.Log.clean(), Memory: h.Signatures.Memory.clean()}
	return &StoredReport{ReportHead: h, Report: report}
}

func (h *ReportHead) texts() []*string {
	return []*string{&h.Program, &h.SHA256, &h.Kind, &h.Title, &h.Failed, &h.Tried}
}

// Describes reports whether the report is of the dump as m says that it is now: of its seal, or, while it arrives, of its log.
func (h *ReportHead) Describes(m *Manifest) bool {
	if m.State == StateArriving {
		return h.OfLog(m)
	}
	return h.Of == ReportOfDump && sameSeal(h.Sealed, h.SHA256, m)
}

// OfLog reports whether the report was made from the log of m while the dump arrived.
func (h *ReportHead) OfLog(m *Manifest) bool {
	return h.Of == ReportOfLog && h.LogBytes == m.Bytes.Log
}

// SideName implements SideFile.
func (*StoredReport) SideName() string { return ReportName }

// Valid implements SideFile.
func (r *StoredReport) Valid() bool {
	return r.valid() && len(r.Report) > 0 && r.Report[0] == '{'
}

func (h *ReportHead) valid() bool {
	for _, s := range h.texts() {
		if *s != clean(*s, maxText) {
			return false
		}
	}
	return h.Version == SideFileVersion && h.Signatures.Log.valid() && h.Signatures.Memory.valid() && writable(h.Time) && (h.Sealed == nil || writable(*h.Sealed)) &&
		(h.Of == ReportOfLog || h.Of == ReportOfDump) && h.LogBytes >= 0
}

// ReadReportHead reads what the report of the dump in dir says of itself. size is the length of report.json in bytes. It reads only
// the beginning of the file, which may be long, and its last bytes, which tell a whole file from a torn one. It returns nil if there is no
// report, and a *DamageError if the file is invalid.
func ReadReportHead(fsys FS, dir string) (h *ReportHead, size int64, err error) {
	f, err := openPlain(fsys, path.Join(dir, ReportName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size, err = f.Size(); err != nil {
		return nil, 0, err
	}
	if size > maxReportLen {
		return nil, size, reportDamage("more than %d bytes", maxReportLen)
	}
	end := make([]byte, min(int64(len(reportEnd)), size))
	if _, err := f.ReadAt(end, size-int64(len(end))); err != nil && !errors.Is(err, io.EOF) {
		return nil, size, err
	}
	if string(end) != reportEnd {
		return nil, size, reportDamage("its end is missing")
	}
	h, err = parseReportHead(io.NewSectionReader(f, 0, maxReportHead))
	return h, size, err
}

func reportDamage(format string, args ...any) error {
	return &DamageError{File: ReportName, Offset: -1, Text: fmt.Sprintf(format, args...)}
}

// parseReportHead reads the members of report.json before the report.
func parseReportHead(r io.Reader) (*ReportHead, error) {
	h := new(ReportHead)
	fields := map[string]any{
		"version": &h.Version, "time": &h.Time, "program": &h.Program, "of": &h.Of, "sealed": &h.Sealed, "sha256": &h.SHA256,
		"log_bytes": &h.LogBytes, "report_version": &h.ReportVersion, "kind": &h.Kind, "title": &h.Title, "signatures": &h.Signatures, "failed": &h.Failed, "tried": &h.Tried,
	}
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, reportDamage("no object")
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, reportDamage("%v", err)
		}
		if key == reportKey {
			if !h.valid() {
				return nil, reportDamage("unknown version, or a value out of range")
			}
			return h, nil
		}
		to := fields[fmt.Sprint(key)]
		if to == nil {
			return nil, reportDamage("unknown field %q", key)
		}
		if err := dec.Decode(to); err != nil {
			return nil, reportDamage("%v", err)
		}
	}
	return nil, reportDamage("it has no report in its first %d bytes", maxReportHead)
}

// Report returns what report.json says, nil if there is none. The error is a *DamageError if the file is invalid.
func (d *Dump) Report() (*StoredReport, error) { return ReadSideFile[StoredReport](d.fs, d.dir) }
