package sender

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/protocol"
)

// maxLostNoted is how many lost pages are told one by one.
const maxLostNoted = 16

// Meter counts what a Send has done so far. Its zero value is ready; any goroutine may
// ask it at any time.
type Meter struct {
	mu       sync.Mutex
	started  time.Time
	state    string
	place    uint64 // in a receiver's queue
	of       uint64
	planned  uint64 // pages wanted
	had      uint64 // pages that the receiver had when the session began
	acked    uint64 // pages made durable since
	tier     string
	wire     uint64 // bytes written in earlier sessions
	conn     *protocol.Conn
	raw      uint64
	progress time.Time
	steps    uint64         // any progress counts
	lost     map[uint64]int // lost pages by chunk
	named    []lostPage     // the first maxLostNoted of the plan, in its order
	told     int            // how many onLost was told of
	onLost   func(LostPage)
}

// lostPage is a page that could not be read, and the chunk that it is missing from.
type lostPage struct {
	seq uint64
	LostPage
}

// Progress is a Meter at one moment.
type Progress struct {
	// State is what goes on, in a few words.
	State string
	// Place in the receiver's queue of Of waiting senders, 0 when it does not wait.
	Place, Of uint64
	// Tier of the chunk last sent.
	Tier string
	// Pages are durable on the receiver, of Planned.
	Pages, Planned uint64
	// Lost pages could not be read.
	Lost uint64
	// BytesSent counts all bytes on the wire, TLS aside; RawBytes the pages in them.
	BytesSent, RawBytes uint64
	// Elapsed time since Send began.
	Elapsed time.Duration
}

// String tells it in one line.
func (p Progress) String() string {
	s := p.State
	if p.Place > 0 {
		s += fmt.Sprintf(", place %d", p.Place)
		if p.Of > 0 {
			s += fmt.Sprintf(" of %d", p.Of)
		}
	}
	if p.Planned > 0 {
		s += fmt.Sprintf(": %d of %d pages (%d%%)", p.Pages, p.Planned, p.Pages*100/p.Planned)
		if p.Tier != "" {
			s += ", " + p.Tier
		}
	}
	s += fmt.Sprintf(", %s sent in %.1f s", bytesize.Format(p.BytesSent), p.Elapsed.Seconds())
	if p.Lost > 0 {
		s += fmt.Sprintf(", %d pages unreadable", p.Lost)
	}
	return s
}

// Progress returns the state of things.
func (m *Meter) Progress() Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := Progress{
		State: m.state, Place: m.place, Of: m.of, Tier: m.tier, Planned: m.planned, Pages: m.had + m.acked,
		Lost: m.lostPages(), BytesSent: m.wireBytes(), RawBytes: m.raw,
	}
	if !m.started.IsZero() {
		p.Elapsed = time.Since(m.started)
	}
	return p
}

func (m *Meter) wireBytes() uint64 {
	if m.conn != nil {
		return m.wire + m.conn.BytesWritten()
	}
	return m.wire
}

func (m *Meter) lostPages() uint64 {
	n := uint64(0)
	for _, c := range m.lost {
		n += uint64(c)
	}
	return n
}

func (m *Meter) begin(onLost func(LostPage)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started, m.progress, m.onLost = time.Now(), time.Now(), onLost
	m.lost = map[uint64]int{}
}

func (m *Meter) setState(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.place, m.of = fmt.Sprintf(format, args...), 0, 0
	m.steps++
}

// step notes that the job goes on.
func (m *Meter) step() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps++
}

// signs returns counters that change while the job goes on, and while the receiver is
// heard.
func (m *Meter) signs() (steps, heard uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil {
		heard = m.conn.BytesRead()
	}
	return m.steps, heard
}

func (m *Meter) waiting(w *protocol.Wait) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.place, m.of = "waiting for the receiver", w.Place, w.Of
	m.steps++
	m.progress = time.Now() // being told to wait is progress of a kind: the receiver lives and wants us
}

// session begins to count the bytes of a connection.
func (m *Meter) session(c *protocol.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn = c
}

func (m *Meter) sessionOver() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wire = m.wireBytes()
	m.conn = nil
}

// plan notes how many pages are wanted and how many the receiver has of them.
func (m *Meter) plan(planned, had uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.planned, m.had, m.acked = planned, had, 0
	m.progress = time.Now()
}

// sent notes a chunk of a tier with so many bytes of pages before encoding.
func (m *Meter) sent(tier uint8, raw uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tier = tierNames[tier]
	m.raw += raw
	m.steps++
}

// durable notes pages that the receiver has acknowledged.
func (m *Meter) durable(f flight) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acked += f.pages
	m.steps++
	m.progress = time.Now()
}

// stored returns how many pages of the plan the receiver has, and how many of them came
// since plan was called.
func (m *Meter) stored() (pages, gained uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.had + m.acked, m.acked
}

// addLost adds the pages of chunk seq that could not be read. A chunk counts once, even if it is read again after a
// reconnection.
func (m *Meter) addLost(seq uint64, pages []LostPage) {
	m.mu.Lock()
	_, known := m.lost[seq]
	if known || len(pages) == 0 {
		m.mu.Unlock()
		return
	}
	m.lost[seq] = len(pages)
	tell := pages[:min(len(pages), maxLostNoted-m.told)]
	m.told += len(tell)
	m.name(seq, pages)
	onLost := m.onLost
	m.mu.Unlock()
	for _, l := range tell {
		if onLost != nil {
			onLost(l)
		}
	}
}

// name keeps the pages that come first in the plan, whichever encoder was done first: the receiver
// is to hear of the same pages each time.
func (m *Meter) name(seq uint64, pages []LostPage) {
	for _, l := range pages {
		m.named = append(m.named, lostPage{seq, l})
	}
	slices.SortStableFunc(m.named, func(a, b lostPage) int { return cmp.Compare(a.seq, b.seq) })
	m.named = m.named[:min(len(m.named), maxLostNoted)]
}

// lastProgress returns when something last became durable, or the receiver last spoke
// of its own accord.
func (m *Meter) lastProgress() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.progress
}

// lostLines tells of the first lost pages of the plan.
func (m *Meter) lostLines() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := make([]string, len(m.named))
	for i := range m.named {
		lines[i] = m.named[i].String()
	}
	return lines
}

// lostText tells of them in one line.
func (m *Meter) lostText() string { return strings.Join(m.lostLines(), "; ") }
