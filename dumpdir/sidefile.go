package dumpdir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"time"
)

// Side files say something about a dump and are not part of it: SHA256SUMS and the journal do not cover them. They
// are written and removed without the writer's lock, also while a dump arrives. Callers see to it that each has one
// writer at a time.
const (
	PinName          = "pin.json"
	VerificationName = "verify.json"
)

// SideFileVersion is the only version of side files that is written and read.
const SideFileVersion = 1

// Limits of side files.
const (
	maxSideFileLen = 64 << 10
	// MaxRecordedFindings bounds Verification.Findings.
	MaxRecordedFindings = 20
)

// SideFile is the contents of a side file: a pointer to what is encoded as its one JSON object.
type SideFile interface {
	// SideName is the name of the file in the directory of the dump.
	SideName() string
	// Valid reports whether the decoded contents have a known version and all values are in range.
	Valid() bool
}

// ReadSideFile reads the side file of type T of the dump in dir, strictly. It returns nil if there is none, and a
// *DamageError if it is invalid.
func ReadSideFile[T any, P interface {
	*T
	SideFile
}](fsys FS, dir string) (*T, error) {
	v := P(new(T))
	b, err := readSide(fsys, path.Join(dir, v.SideName()), maxLenOf(v))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // there is none
	}
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return nil, &DamageError{File: v.SideName(), Offset: -1, Text: err.Error()}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) || !v.Valid() {
		return nil, &DamageError{File: v.SideName(), Offset: -1, Text: "unknown version, or a value out of range"}
	}
	return v, nil
}

// maxLenOf is the length of the longest side file of the kind of f, in bytes.
func maxLenOf(f SideFile) int64 {
	if _, ok := f.(*StoredReport); ok {
		return maxReportLen
	}
	return maxSideFileLen
}

// readSide reads a side file of at most limit bytes. What lies there may have been planted, so it does not follow a link.
func readSide(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := openPlain(fsys, name)
	if err != nil {
		return nil, err
	}
	return readLimited(f, name, limit)
}

// openPlain opens a file for reading. It does not follow a link, if the file system has any.
func openPlain(fsys FS, name string) (File, error) {
	if p, ok := fsys.(PlainOpener); ok {
		return p.OpenPlain(name)
	}
	return fsys.Open(name)
}

// EncodeSideFile returns the contents of a side file. The error matches ErrTooLong if ReadSideFile would refuse them.
func EncodeSideFile(f SideFile) ([]byte, error) {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, err
	}
	if limit := maxLenOf(f); int64(len(b)) >= limit {
		return nil, fmt.Errorf("%s: %w: %d bytes, and %d is the limit", f.SideName(), ErrTooLong, len(b)+1, limit)
	}
	return append(b, '\n'), nil
}

// saveTries bounds the attempts to write a side file: a writer of the dump removes all temporary files when it
// begins.
const saveTries = 100

// SaveSideFile creates or replaces a side file of the dump in dir, durably. The error matches ErrNotExist if there is
// no dump, and ErrTooLong if ReadSideFile would refuse the file.
func SaveSideFile(fsys FS, dir string, f SideFile) error {
	b, err := EncodeSideFile(f)
	if err != nil {
		return err
	}
	name := f.SideName()
	for range saveTries {
		if err = SaveFile(fsys, dir, name, b); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if _, derr := fsys.ReadDir(dir); derr != nil {
			return notExist(dir, err)
		}
	}
	if err != nil {
		_ = fsys.Remove(path.Join(dir, name+tmpSuffix)) // frees space on a full disk; the first error counts
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// RemoveSideFile removes a side file durably. Without one it does nothing.
func RemoveSideFile(fsys FS, dir, name string) error {
	if err := ignoreNotExist(fsys.Remove(path.Join(dir, name))); err != nil {
		return err
	}
	return notExist(dir, fsys.SyncDir(dir))
}

// Pin is pin.json: the dump must be kept. A pin that cannot be read counts as a pin.
type Pin struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	Reason  string    `json:"reason,omitempty"`
}

// NewPin returns a pin with the time now. The reason is cut and cleaned.
func NewPin(now time.Time, reason string) *Pin {
	return &Pin{Version: SideFileVersion, Time: now.UTC().Truncate(time.Second), Reason: clean(reason, maxText)}
}

// SideName implements SideFile.
func (*Pin) SideName() string { return PinName }

// Valid implements SideFile.
func (p *Pin) Valid() bool {
	return p.Version == SideFileVersion && writable(p.Time) && p.Reason == clean(p.Reason, maxText)
}

// Verification is verify.json: the result of the last verification of a sealed dump. It is valid only for the seal
// that it names: see Of.
type Verification struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"` // end of the verification
	// Sealed and SHA256 are those of the manifest. They name the verified seal.
	Sealed   *time.Time `json:"sealed,omitempty"`
	SHA256   string     `json:"sha256,omitempty"`
	Damaged  uint64     `json:"damaged"` // places
	Findings []Finding  `json:"findings,omitempty"`
}

// NewVerification returns the record of a report on the dump with manifest m.
func NewVerification(m *Manifest, rep *Report, now time.Time) *Verification {
	v := &Verification{Version: SideFileVersion, Time: now.UTC().Truncate(time.Second), Sealed: m.EndTime, SHA256: m.SHA256, Damaged: rep.Damaged}
	for _, f := range rep.Findings[:min(len(rep.Findings), MaxRecordedFindings)] {
		v.Findings = append(v.Findings, cleanFinding(f))
	}
	return v
}

// Of reports whether v is about the present seal of m, and not about an earlier one that was taken back.
func (v *Verification) Of(m *Manifest) bool { return sameSeal(v.Sealed, v.SHA256, m) }

// sameSeal reports whether end_time and sha256 of a manifest that a side file names are those of m.
func sameSeal(sealed *time.Time, sha256 string, m *Manifest) bool {
	if sha256 != m.SHA256 || (sealed == nil) != (m.EndTime == nil) {
		return false
	}
	return sealed == nil || sealed.Equal(*m.EndTime)
}

// SideName implements SideFile.
func (*Verification) SideName() string { return VerificationName }

// Valid implements SideFile.
func (v *Verification) Valid() bool {
	return v.Version == SideFileVersion && writable(v.Time) && (v.Sealed == nil || writable(*v.Sealed)) &&
		v.SHA256 == clean(v.SHA256, maxText) && len(v.Findings) <= MaxRecordedFindings && uint64(len(v.Findings)) <= v.Damaged &&
		!slices.ContainsFunc(v.Findings, func(f Finding) bool { return f != cleanFinding(f) })
}

// cleanFinding returns f with texts that are safe to print.
func cleanFinding(f Finding) Finding {
	for _, s := range []*string{&f.File, &f.Where, &f.Field, &f.Text} {
		*s = clean(*s, maxText)
	}
	return f
}

// writable reports whether RFC 3339 can express t.
func writable(t time.Time) bool {
	y := t.UTC().Year()
	return !t.IsZero() && y >= 1970 && y <= maxYear
}
