package receiver

import (
	"sync"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/receiver/admission"
)

// States of a session, as Status shows them.
const (
	stateHello     = "hello"            // says who crashed, sends its log
	stateWaiting   = "waiting"          // in the queue
	statePlanning  = "planning"         // let in, makes or sends its plan
	stateNoRoom    = "waiting for room" // in the queue, with its plan
	stateReceiving = "receiving"        // sends pages
	stateSealing   = "sealing"          // the dump is read back and made final
)

// view is what others may see of a session while it runs.
type view struct {
	mu     sync.Mutex
	state  string
	since  time.Time // of state
	w      *dumpdir.Writer
	ticket *admission.Ticket
	reason string // why it waits
	pages  uint64 // that are to come; 0 until there is a plan
	// Two looks at the pages that are there, for the rate.
	before, last look
}

// look is the count of pages at one time.
type look struct {
	at    time.Time
	pages uint64
}

// rateSpan is the time over which a rate is averaged, at least.
const rateSpan = 5 * time.Second

func (v *view) enter(state string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.state, v.since, v.reason = state, time.Now(), ""
}

func (v *view) opened(w *dumpdir.Writer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.w = w
}

func (v *view) queued(t *admission.Ticket) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ticket = t
}

func (v *view) because(reason string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reason = reason
}

func (v *view) plan(pages uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pages = pages
}

// recordPages records how many pages are durable now.
func (v *view) recordPages(pages uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := look{time.Now(), pages}
	switch {
	case v.last.at.IsZero():
		v.before, v.last = now, now
	case now.at.Sub(v.last.at) >= rateSpan:
		v.before, v.last = v.last, now
	}
}

// rate returns the pages a second lately. The mutex is held.
func (v *view) rate(now look) float64 {
	if v.before.at.IsZero() || now.pages < v.before.pages {
		return 0
	}
	seconds := now.at.Sub(v.before.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return float64(now.pages-v.before.pages) / seconds
}
