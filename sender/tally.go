package sender

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// maxLostNoted is how many lost pages are told one by one.
const maxLostNoted = 16

// A Tally counts what a Send has done so far. Its zero value is ready; any goroutine may
// ask it at any time.
type Tally struct {
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
	steps    uint64         // whatever is done counts
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

// Progress is a Tally at one moment.
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
	s += fmt.Sprintf(", %s sent in %.1f s", megabytes(p.BytesSent), p.Elapsed.Seconds())
	if p.Lost > 0 {
		s += fmt.Sprintf(", %d pages unreadable", p.Lost)
	}
	return s
}

// megabytes formats n as the last line on a console has it.
func megabytes(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// Progress returns the state of things.
func (t *Tally) Progress() Progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := Progress{
		State: t.state, Place: t.place, Of: t.of, Tier: t.tier, Planned: t.planned, Pages: t.had + t.acked,
		Lost: t.lostPages(), BytesSent: t.wireBytes(), RawBytes: t.raw,
	}
	if !t.started.IsZero() {
		p.Elapsed = time.Since(t.started)
	}
	return p
}

func (t *Tally) wireBytes() uint64 {
	if t.conn != nil {
		return t.wire + t.conn.BytesWritten()
	}
	return t.wire
}

func (t *Tally) lostPages() uint64 {
	n := uint64(0)
	for _, c := range t.lost {
		n += uint64(c) //nolint:gosec // a length
	}
	return n
}

func (t *Tally) begin(onLost func(LostPage)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.started, t.progress, t.onLost = time.Now(), time.Now(), onLost
	t.lost = map[uint64]int{}
}

func (t *Tally) setState(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state, t.place, t.of = fmt.Sprintf(format, args...), 0, 0
	t.steps++
}

// step notes that the job goes on.
func (t *Tally) step() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps++
}

// signs returns counters that change while the job goes on, and while the receiver is
// heard.
func (t *Tally) signs() (steps, heard uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn != nil {
		heard = t.conn.BytesRead()
	}
	return t.steps, heard
}

func (t *Tally) waiting(w *protocol.Wait) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state, t.place, t.of = "waiting for the receiver", w.Place, w.Of
	t.steps++
	t.progress = time.Now() // being told to wait is progress of a kind: the receiver lives and wants us
}

// session begins to count the bytes of a connection.
func (t *Tally) session(c *protocol.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn = c
}

func (t *Tally) sessionOver() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wire = t.wireBytes()
	t.conn = nil
}

// plan notes how many pages are wanted and how many the receiver has of them.
func (t *Tally) plan(planned, had uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.planned, t.had, t.acked = planned, had, 0
	t.progress = time.Now()
}

// sent notes a chunk of a tier with so many bytes of pages before encoding.
func (t *Tally) sent(tier uint8, raw uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tier = tierNames[tier]
	t.raw += raw
	t.steps++
}

// durable notes pages that the receiver has acknowledged.
func (t *Tally) durable(f flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.acked += f.pages
	t.steps++
	t.progress = time.Now()
}

// stored returns how many pages of the plan the receiver has, and how many of them came
// since plan was called.
func (t *Tally) stored() (pages, gained uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.had + t.acked, t.acked
}

// lose notes the pages of chunk seq that could not be read. A chunk that is read again
// after a reconnection counts once.
func (t *Tally) lose(seq uint64, pages []LostPage) {
	t.mu.Lock()
	_, known := t.lost[seq]
	if known || len(pages) == 0 {
		t.mu.Unlock()
		return
	}
	t.lost[seq] = len(pages)
	tell := pages[:min(len(pages), maxLostNoted-t.told)]
	t.told += len(tell)
	t.name(seq, pages)
	onLost := t.onLost
	t.mu.Unlock()
	for _, l := range tell {
		if onLost != nil {
			onLost(l)
		}
	}
}

// name keeps the pages that come first in the plan, whichever encoder was done first: the receiver
// is to hear of the same pages each time.
func (t *Tally) name(seq uint64, pages []LostPage) {
	for _, l := range pages {
		t.named = append(t.named, lostPage{seq, l})
	}
	slices.SortStableFunc(t.named, func(a, b lostPage) int { return cmp.Compare(a.seq, b.seq) })
	t.named = t.named[:min(len(t.named), maxLostNoted)]
}

// lastProgress returns when something last became durable, or the receiver last spoke
// of its own accord.
func (t *Tally) lastProgress() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.progress
}

// lostLines tells of the first lost pages of the plan.
func (t *Tally) lostLines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := make([]string, len(t.named))
	for i := range t.named {
		lines[i] = t.named[i].String()
	}
	return lines
}

// lostText tells of them in one line.
func (t *Tally) lostText() string { return strings.Join(t.lostLines(), "; ") }
