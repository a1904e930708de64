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

// Side files say something about a dump that is no part of it: SHA256SUMS does not cover them, the journal
// does not know them, and they come and go without the writer's lock, also while a dump arrives. Each
// of them has one writer at a time, which its callers see to.
const (
	PinName          = "pin.json"
	VerificationName = "verify.json"
)

// SideFileVersion is the version of side files that is written and the only one read.
const SideFileVersion = 1

// Limits of side files.
const (
	maxSideFileLen = 64 << 10
	// MaxRecordedFindings bounds Verification.Findings.
	MaxRecordedFindings = 20
)

// Pin is pin.json: somebody wants the dump kept.
type Pin struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	Reason  string    `json:"reason,omitempty"`
}

// ReadPin reads the pin of the dump in dir, nil when there is none. With a *DamageError, or any other error, there is
// one: what cannot be read is no reason to let the dump go.
func ReadPin(fsys FS, dir string) (*Pin, error) {
	p := new(Pin)
	ok, err := readSideFile(fsys, dir, PinName, p, func() bool {
		return p.Version == SideFileVersion && writable(p.Time) && p.Reason == clean(p.Reason, maxText)
	})
	if err != nil || !ok {
		return nil, err
	}
	return p, nil
}

// SavePin pins the dump in dir, durably. The reason is cut to size and cleaned. The error matches ErrNotExist
// when no dump is there.
func SavePin(fsys FS, dir string, p Pin) error {
	p.Version, p.Time, p.Reason = SideFileVersion, p.Time.UTC().Truncate(time.Second), clean(p.Reason, maxText)
	return saveSideFile(fsys, dir, PinName, p)
}

// RemovePin takes the pin away, durably. Without one it does nothing.
func RemovePin(fsys FS, dir string) error {
	if err := ignoreNotExist(fsys.Remove(path.Join(dir, PinName))); err != nil {
		return err
	}
	return notExist(dir, fsys.SyncDir(dir))
}

// Verification is verify.json: what the last verification of a sealed dump found. It counts only for the seal
// that it names: see Of.
type Verification struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"` // when it ended
	// Sealed and SHA256 are those of the manifest: which seal was verified.
	Sealed   *time.Time `json:"sealed,omitempty"`
	SHA256   string     `json:"sha256,omitempty"`
	Damaged  uint64     `json:"damaged"` // places
	Findings []Finding  `json:"findings,omitempty"`
}

// NewVerification returns what to record of a report on the dump that m is the manifest of.
func NewVerification(m *Manifest, rep *Report, now time.Time) *Verification {
	v := &Verification{Version: SideFileVersion, Time: now.UTC().Truncate(time.Second), Sealed: m.EndTime, SHA256: m.SHA256, Damaged: rep.Damaged}
	v.Findings = slices.Clone(rep.Findings[:min(len(rep.Findings), MaxRecordedFindings)])
	return v
}

// Of reports whether v is about the dump as m describes it, and not about an earlier seal that was taken back.
func (v *Verification) Of(m *Manifest) bool {
	if v.SHA256 != m.SHA256 || (v.Sealed == nil) != (m.EndTime == nil) {
		return false
	}
	return v.Sealed == nil || v.Sealed.Equal(*m.EndTime)
}

// ReadVerification reads verify.json of the dump in dir, nil when there is none.
func ReadVerification(fsys FS, dir string) (*Verification, error) {
	v := new(Verification)
	ok, err := readSideFile(fsys, dir, VerificationName, v, func() bool {
		return v.Version == SideFileVersion && writable(v.Time) && (v.Sealed == nil || writable(*v.Sealed)) &&
			v.SHA256 == clean(v.SHA256, maxText) && len(v.Findings) <= MaxRecordedFindings && uint64(len(v.Findings)) <= v.Damaged &&
			!slices.ContainsFunc(v.Findings, func(f Finding) bool { return f != cleanFinding(f) })
	})
	if err != nil || !ok {
		return nil, err
	}
	return v, nil
}

// SaveVerification records v, durably. The error matches ErrNotExist when no dump is there.
func SaveVerification(fsys FS, dir string, v *Verification) error {
	c := *v
	c.Findings = nil
	for _, f := range v.Findings {
		c.Findings = append(c.Findings, cleanFinding(f))
	}
	return saveSideFile(fsys, dir, VerificationName, &c)
}

// cleanFinding returns f with texts that are safe to print.
func cleanFinding(f Finding) Finding {
	for _, s := range []*string{&f.File, &f.Where, &f.Field, &f.Text} {
		*s = clean(*s, maxText)
	}
	return f
}

// writable reports whether RFC 3339 has a form for t.
func writable(t time.Time) bool {
	y := t.UTC().Year()
	return !t.IsZero() && y >= 1970 && y <= maxYear
}

// readSideFile decodes a side file strictly. ok is false when there is none.
func readSideFile(fsys FS, dir, name string, v any, valid func() bool) (ok bool, err error) {
	b, err := readSmall(fsys, path.Join(dir, name), maxSideFileLen)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return false, &DamageError{File: name, Offset: -1, Text: err.Error()}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) || !valid() {
		return false, &DamageError{File: name, Offset: -1, Text: "unknown version, or a value out of range"}
	}
	return true, nil
}

// saveTries bounds how often a side file is written anew because a writer of the dump, which removes all
// temporary files when it begins, took it for a leftover.
const saveTries = 100

// saveSideFile makes or replaces a side file durably.
func saveSideFile(fsys FS, dir, name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	for range saveTries {
		if err = SaveFile(fsys, dir, name, append(b, '\n')); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if _, derr := fsys.ReadDir(dir); derr != nil {
			return notExist(dir, err)
		}
	}
	if err != nil {
		_ = fsys.Remove(path.Join(dir, name+tmpSuffix)) // on a full disk every byte counts; the error is what matters
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
