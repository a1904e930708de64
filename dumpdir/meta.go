package dumpdir

import (
	"time"

	"github.com/corehaul/corehaul/internal/printable"
)

// State is the state of a dump.
type State string

// The states of a dump.
const (
	StateArriving State = "arriving" // not sealed; pages or the log may still come
	StateComplete State = "complete" // sealed with every page of its plan
	StatePartial  State = "partial"  // sealed with pages missing
	StateLogOnly  State = "log-only" // sealed with the log and no pages
	StateDamaged  State = "damaged"  // stored bytes differ from what was written
)

// ReasonGone is the reason of a dump that a receiver sealed because nobody went on with it.
const ReasonGone = "the sender broke off and did not come back"

// Meta is the facts of a dump at the creation of its directory. Strings of the crashed machine are cut and cleaned
// before they are stored.
type Meta struct {
	ID        string // 16 to 64 characters of 0-9a-f
	Host      string // the name that the peer proved; at most 64 bytes
	Release   string // OSRELEASE
	Nodename  string
	Machine   string // x86_64, aarch64
	BuildID   string
	PanicLine string
	CrashTime time.Time // zero if unknown
	StartTime time.Time // start of the arrival; zero means now
	Transport string    // tls, ssh, nfs, file
	Peer      string    // address of the peer
	Sender    string    // name and version of the sending program
	Receiver  string    // name and version of the receiving program
}

// setMeta copies meta, cleaned. It does not change an ID, Host or StartTime that is set.
func (m *Manifest) setMeta(meta *Meta) {
	if m.ID == "" {
		m.ID, m.Host, m.StartTime = meta.ID, meta.Host, meta.StartTime.UTC().Truncate(time.Millisecond)
	}
	m.Release, m.Nodename, m.Machine = meta.Release, meta.Nodename, meta.Machine
	m.BuildID, m.PanicLine = meta.BuildID, meta.PanicLine
	m.Transport, m.Peer, m.Sender, m.Receiver = meta.Transport, meta.Peer, meta.Sender, meta.Receiver
	m.CrashTime = nil
	if y := meta.CrashTime.UTC().Year(); !meta.CrashTime.IsZero() && y >= 1970 && y <= maxYear {
		t := meta.CrashTime.UTC()
		m.CrashTime = &t
	}
	for _, s := range m.texts() {
		*s = clean(*s, maxText)
	}
}

// meta is the inverse of setMeta.
func (m *Manifest) meta() Meta {
	meta := Meta{
		ID: m.ID, Host: m.Host, Release: m.Release, Nodename: m.Nodename, Machine: m.Machine, BuildID: m.BuildID,
		PanicLine: m.PanicLine, StartTime: m.StartTime, Transport: m.Transport, Peer: m.Peer, Sender: m.Sender, Receiver: m.Receiver,
	}
	if m.CrashTime != nil {
		meta.CrashTime = *m.CrashTime
	}
	return meta
}

// UpdateMeta changes the manifest when facts come later than Create, such as the panic line of the log. ID, Host and
// StartTime stay. After the seal it returns ErrSealed.
func (w *Writer) UpdateMeta(change func(*Meta)) error {
	c := w.c
	if err := c.enter(w); err != nil {
		return err
	}
	defer c.commitMu.Unlock()
	if c.seal != nil { // commitMu is enough to read it
		return ErrSealed
	}
	c.changeMeta(change)
	return c.saveManifest()
}

// changeMeta changes the manifest in memory.
func (c *core) changeMeta(change func(*Meta)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	meta := c.m.meta()
	change(&meta)
	c.m.setMeta(&meta)
}

// MinID is the minimum length of an id.
const MinID = 16

// ValidID reports whether id is a valid dump id: 16 to 64 characters of 0-9 and a-f.
func ValidID(id string) bool {
	if len(id) < MinID || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Limits of the manifest's strings, in bytes.
const (
	maxHost = 64
	maxText = 512
)

// clean makes a string of a crashed machine or a peer safe to print: valid UTF-8, without control and invisible
// characters, at most limit bytes. It is idempotent.
func clean(s string, limit int) string { return printable.Clean(s, limit) }
