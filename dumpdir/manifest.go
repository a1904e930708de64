package dumpdir

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"
)

// ManifestVersion is the only version of manifest.json that is written and read.
const ManifestVersion = 1

// Manifest is manifest.json: a summary of the dump, for people and for the index. It is derived from the journal. If
// they differ, the journal is right.
type Manifest struct {
	Version   int               `json:"version"`
	ID        string            `json:"id"`
	Host      string            `json:"host"`
	State     State             `json:"state"`
	Reason    string            `json:"reason,omitempty"`
	Release   string            `json:"release,omitempty"`
	Nodename  string            `json:"nodename,omitempty"`
	Machine   string            `json:"machine,omitempty"`
	BuildID   string            `json:"build_id,omitempty"`
	PanicLine string            `json:"panic_line,omitempty"`
	CrashTime *time.Time        `json:"crash_time,omitempty"`
	StartTime time.Time         `json:"start_time"`
	EndTime   *time.Time        `json:"end_time,omitempty"`
	Plan      *ManifestPlan     `json:"plan,omitempty"`
	Pages     PageCounts        `json:"pages"`
	Bytes     ByteCounts        `json:"bytes"`
	Encodings map[string]uint64 `json:"encodings,omitempty"` // pages by encoding: raw, zlib, lzo, snappy, zstd, zero
	SHA256    string            `json:"sha256,omitempty"`    // of vmcore
	Transport string            `json:"transport,omitempty"`
	Peer      string            `json:"peer,omitempty"`
	Sender    string            `json:"sender,omitempty"`
	Receiver  string            `json:"receiver,omitempty"`
}

// ManifestPlan is a summary of the plan.
type ManifestPlan struct {
	Level    uint8             `json:"level"`
	PageSize int               `json:"page_size"`
	MaxPFN   uint64            `json:"max_pfn"`
	NrCPUs   uint32            `json:"nr_cpus"`
	Chunks   uint64            `json:"chunks"`
	Classes  map[string]uint64 `json:"classes,omitempty"` // pages of RAM by kind, as counted by the sender
	Hash     string            `json:"hash"`              // the first half, 16 hexadecimal digits
}

// EssentialPages is the key in ManifestPlan.Classes for the pages of the plan without which crash does not open the dump. They are
// sent first. A manifest of an older receiver, or of a copied file, does not have it.
const EssentialPages = "essential"

// PageCounts counts pages of the plan.
type PageCounts struct {
	Planned uint64 `json:"planned"`
	Present uint64 `json:"present"` // zero pages included
	Zero    uint64 `json:"zero"`
	Missing uint64 `json:"missing"`
}

// ByteCounts counts bytes.
type ByteCounts struct {
	VMCore int64 `json:"vmcore"` // length of the file
	Log    int64 `json:"log"`
	Raw    int64 `json:"raw"` // of the present pages, before compression
}

// Limits of a manifest.
const (
	maxManifestLen = 256 << 10
	maxMapEntries  = 64
	maxYear        = 9999 // the last year of RFC 3339
)

// ParseManifest reads a manifest strictly: it refuses unknown fields, values out of range, and data behind the
// document. Errors are a *DamageError, match ErrUnsupported, or come from r.
func ParseManifest(r io.Reader) (*Manifest, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxManifestLen+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxManifestLen {
		return nil, manifestDamage("more than %d bytes", maxManifestLen)
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, manifestDamage("%v", err)
	}
	if v.Version != ManifestVersion {
		return nil, fmt.Errorf("%s: version %d: %w", ManifestName, v.Version, ErrUnsupported)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	m := new(Manifest)
	if err := dec.Decode(m); err != nil {
		return nil, manifestDamage("%v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, manifestDamage("more than one document")
	}
	if what := m.wrong(); what != "" {
		return nil, manifestDamage("%s", what)
	}
	return m, nil
}

func manifestDamage(format string, args ...any) error {
	return &DamageError{File: ManifestName, Offset: -1, Text: fmt.Sprintf(format, args...)}
}

// wrong returns the name of an invalid field, or "".
func (m *Manifest) wrong() string {
	switch {
	case !ValidID(m.ID):
		return "id"
	case m.State != StateArriving && m.State != StateComplete && m.State != StatePartial && m.State != StateLogOnly:
		return "state"
	case m.Plan != nil && len(m.Plan.Classes) > maxMapEntries:
		return "plan.classes"
	case len(m.Encodings) > maxMapEntries:
		return "encodings"
	case m.Bytes.VMCore < 0 || m.Bytes.Log < 0 || m.Bytes.Raw < 0:
		return "bytes"
	}
	for name, s := range m.texts() {
		if *s != clean(*s, maxText) {
			return name
		}
	}
	return ""
}

// texts returns the fields chosen by outsiders, by name.
func (m *Manifest) texts() map[string]*string {
	return map[string]*string{
		"host": &m.Host, "reason": &m.Reason, "release": &m.Release, "nodename": &m.Nodename, "machine": &m.Machine,
		"build_id": &m.BuildID, "panic_line": &m.PanicLine, "sha256": &m.SHA256, "transport": &m.Transport,
		"peer": &m.Peer, "sender": &m.Sender, "receiver": &m.Receiver,
	}
}

// encode returns the bytes of manifest.json.
func (m *Manifest) encode() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	return append(b, '\n'), err
}

// clone returns a copy that shares nothing that changes later.
func (m *Manifest) clone() *Manifest {
	c := *m
	c.Encodings = maps.Clone(m.Encodings)
	if m.Plan != nil {
		p := *m.Plan
		p.Classes = maps.Clone(p.Classes)
		c.Plan = &p
	}
	return &c
}

// setPlan sets the summary of the plan.
func (m *Manifest) setPlan(f *Facts, p *PlanInfo) {
	var classes map[string]uint64
	if m.Plan != nil {
		classes = m.Plan.Classes
	}
	m.Plan = &ManifestPlan{
		Level: f.DumpLevel, PageSize: f.PageSize, MaxPFN: uint64(f.MaxPFN), NrCPUs: f.NrCPUs,
		Chunks: p.Chunks, Classes: classes, Hash: hex.EncodeToString(p.Hash[:8]),
	}
}

// codecNames are the keys of Manifest.Encodings by page_desc.flags.
var codecNames = map[uint32]string{PageRaw: "raw", PageZlib: "zlib", PageLZO: "lzo", PageSnappy: "snappy", PageZstd: "zstd"}

// setCounts sets the counts from the journal.
func (m *Manifest) setCounts(c *counts, p Progress, pageSize int) {
	m.Pages = PageCounts{Planned: p.Planned, Present: p.Present, Zero: p.Zero, Missing: p.Missing()}
	m.Bytes.VMCore = p.Bytes
	m.Bytes.Raw = int64(p.Present) * int64(pageSize) //nolint:gosec // at most MaxPFN pages of 64 KiB
	m.Encodings = make(map[string]uint64)
	for flags, n := range c.codecs {
		m.Encodings[codecNames[flags]] = n
	}
	if c.zero > 0 {
		m.Encodings["zero"] = c.zero
	}
}

// setSeal sets the fields of the seal; nil means that there is none.
func (m *Manifest) setSeal(s *sealRecord) {
	m.State, m.Reason, m.SHA256, m.EndTime = StateArriving, "", "", nil
	if s == nil {
		return
	}
	m.State, m.Reason = s.state, s.reason
	if s.state != StateLogOnly {
		m.SHA256 = hex.EncodeToString(s.sum[:])
	}
	if t := time.Unix(s.time, 0).UTC(); t.Year() >= 1970 && t.Year() <= maxYear {
		m.EndTime = &t
	}
}

// manifestOf makes a manifest from the journal alone.
func manifestOf(j *journal) *Manifest {
	m := &Manifest{Version: ManifestVersion}
	meta := Meta{ID: j.ident.id, Host: j.ident.host}
	if f := j.facts; f != nil {
		meta.Release, meta.Nodename, meta.Machine = f.Utsname.Release, f.Utsname.Nodename, f.Utsname.Machine
		meta.CrashTime = f.Time
	}
	m.setMeta(&meta)
	if m.CrashTime != nil {
		m.StartTime = *m.CrashTime
	}
	if j.plan != nil {
		m.setPlan(j.facts, j.plan)
	}
	return m
}

func readManifest(fsys FS, name string) (*Manifest, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(io.NewSectionReader(f, 0, maxManifestLen+1))
	return m, errors.Join(err, f.Close())
}

// Manifest returns a copy of the present manifest.
func (w *Writer) Manifest() *Manifest {
	c := w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fillManifest()
	return c.m.clone()
}

// saveManifest updates the manifest, makes it durable and calls Changed. commitMu is held, or nobody else has the
// core yet.
func (c *core) saveManifest() error {
	c.mu.Lock()
	c.fillManifest()
	m := c.m.clone()
	c.mu.Unlock()
	b, err := m.encode()
	if err != nil {
		return c.fail(err)
	}
	if err := SaveFile(c.fs, c.dir, ManifestName, b); err != nil {
		return c.fail(err)
	}
	if c.opts.Changed != nil {
		c.opts.Changed(m)
	}
	return nil
}

// fillManifest updates the fields that come from the journal. mu is held.
func (c *core) fillManifest() {
	pageSize := 0
	if c.plan != nil {
		pageSize = c.plan.PageSize
	}
	c.m.setCounts(&c.count, c.progress(), pageSize)
	c.m.setSeal(c.seal)
	if c.log != nil {
		c.m.Bytes.Log = c.log.size
	}
}
