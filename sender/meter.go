package sender

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/protocol"
)

// maxLostNoted is how many lost pages are named.
const maxLostNoted = 16

// Meter counts what a Send has done so far. Its zero value is ready. It is safe for concurrent use.
type Meter struct {
	mu       sync.Mutex
	started  time.Time
	state    string
	place    uint64 // in the receiver's queue
	of       uint64
	planned  uint64 // pages that the receiver wants
	had      uint64 // pages that the receiver had when the session began
	acked    uint64 // pages made durable since
	pageSize uint32
	looks    [2]look // two looks at acked, the older one first: what the rate is made of
	tier     string
	wire     uint64 // bytes written in earlier sessions
	conn     *protocol.Conn
	raw      uint64
	progress time.Time
	steps    uint64         // grows with any progress
	lost     map[uint64]int // lost pages by chunk
	named    []lostPage     // the first maxLostNoted in plan order
	told     int            // calls of onLost
	onLost   func(LostPage)
}

// look is the number of acknowledged pages at one time.
type look struct {
	at    time.Time
	pages uint64
}

// rateSpan is the least time over which a rate is averaged.
const rateSpan = 5 * time.Second

// lostPage is a page that could not be read, and the number of its chunk.
type lostPage struct {
	seq uint64
	LostPage
}

// Progress is a Meter at one moment.
type Progress struct {
	// State says in a few words what the sender does.
	State string
	// Place is the place in the receiver's queue of Of waiting senders, 0 if the sender does not wait.
	Place, Of uint64
	// Tier is the tier of the last chunk that was sent.
	Tier string
	// Pages is how many of the Planned pages are durable on the receiver.
	Pages, Planned uint64
	// Rate is how many bytes of pages become durable in a second, before encoding; 0 if that is not known yet.
	Rate float64
	// Left is the time that the missing pages take at that rate; 0 if that is not known.
	Left time.Duration
	// Lost counts the pages that could not be read.
	Lost uint64
	// BytesSent counts the bytes on the wire without the overhead of TLS. RawBytes counts the page data before encoding.
	BytesSent, RawBytes uint64
	// Elapsed is the time since Send began.
	Elapsed time.Duration
}

// String formats p in one line.
func (p Progress) String() string {
	s := p.stateAndPlace()
	if p.Planned > 0 {
		s += fmt.Sprintf(": %d of %d pages (%d%%)%s", p.Pages, p.Planned, p.Pages*100/p.Planned, p.pace())
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

// Short formats in a few words how far the sender is, for narrow terminals.
func (p Progress) Short() string {
	if p.Planned == 0 {
		return p.stateAndPlace()
	}
	return fmt.Sprintf("%s %d%%%s", p.stateAndPlace(), p.Pages*100/p.Planned, p.pace())
}

func (p Progress) stateAndPlace() string {
	switch {
	case p.Place == 0:
		return p.State
	case p.Of == 0:
		return fmt.Sprintf("%s, place %d", p.State, p.Place)
	}
	return fmt.Sprintf("%s, place %d of %d", p.State, p.Place, p.Of)
}

// pace says how fast the dump is sent, and how long that still takes.
func (p Progress) pace() (s string) {
	if p.Rate > 0 {
		s = fmt.Sprintf(", %s/s", bytesize.Format(uint64(p.Rate)))
	}
	if p.Left > 0 {
		s += fmt.Sprintf(", %s left", p.Left)
	}
	return s
}

// Progress returns the current counts.
func (m *Meter) Progress() Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := Progress{
		State: m.state, Place: m.place, Of: m.of, Tier: m.tier, Planned: m.planned, Pages: m.had + m.acked,
		Lost: m.lostPages(), BytesSent: m.wireBytes(), RawBytes: m.raw,
	}
	now := time.Now()
	if !m.started.IsZero() {
		p.Elapsed = now.Sub(m.started)
	}
	perSecond := m.rate(now)
	p.Rate = perSecond * float64(m.pageSize)
	if left := float64(p.Planned-min(p.Pages, p.Planned)) / perSecond; perSecond > 0 && left < maxLeft.Seconds() {
		p.Left = time.Duration(left) * time.Second
	}
	return p
}

// maxLeft is the longest time that is told: a longer one only says that nothing moves.
const maxLeft = 100 * 24 * time.Hour

// rate returns the recent rate in pages a second; mu is held.
func (m *Meter) rate(now time.Time) float64 {
	first := m.looks[0]
	if seconds := now.Sub(first.at).Seconds(); !first.at.IsZero() && seconds > 0 {
		return float64(m.acked-first.pages) / seconds
	}
	return 0
}

// note keeps a look at acked for the rate; mu is held.
func (m *Meter) note(now time.Time) {
	switch l := (look{now, m.acked}); {
	case m.looks[1].at.IsZero():
		m.looks = [2]look{l, l}
	case now.Sub(m.looks[1].at) >= rateSpan:
		m.looks = [2]look{m.looks[1], l}
	}
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

// step notes that the sender is not hung.
func (m *Meter) step() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps++
}

// signs returns two counters: steps grows while the sender makes progress, heard while bytes come from the receiver.
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
	m.progress = time.Now() // the receiver is alive and wants the dump
}

// session starts to count the bytes of a connection.
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

// plan notes how many pages of which size the receiver wants, and how many of them it has.
func (m *Meter) plan(planned, had uint64, pageSize uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.planned, m.had, m.acked, m.pageSize = planned, had, 0, pageSize
	m.progress = time.Now()
	m.looks = [2]look{}
	m.note(m.progress)
}

// sent notes a chunk of a tier with raw bytes of page data before encoding.
func (m *Meter) sent(tier uint8, raw uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tier = tierNames[tier]
	m.raw += raw
	m.steps++
}

// durable notes the pages of an acknowledged chunk.
func (m *Meter) durable(f flight) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acked += f.pages
	m.steps++
	m.progress = time.Now()
	m.note(m.progress)
}

// stored returns how many pages of the plan the receiver has, and how many of them it acknowledged in this session.
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

// name keeps the first lost pages in plan order, whichever worker was first, so that every session names the same pages.
func (m *Meter) name(seq uint64, pages []LostPage) {
	for _, l := range pages {
		m.named = append(m.named, lostPage{seq, l})
	}
	// slices.SortStableFunc would make more code.
	sort.SliceStable(m.named, func(i, j int) bool { return m.named[i].seq < m.named[j].seq })
	m.named = m.named[:min(len(m.named), maxLostNoted)]
}

// lastProgress returns when a chunk last became durable, a plan was last agreed on, or the receiver last sent WAIT.
func (m *Meter) lastProgress() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.progress
}

// lostLines names the first lost pages, one in each line.
func (m *Meter) lostLines() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := make([]string, len(m.named))
	for i := range m.named {
		lines[i] = m.named[i].String()
	}
	return lines
}

// lostText names the first lost pages in one line.
func (m *Meter) lostText() string { return strings.Join(m.lostLines(), "; ") }
