package receiver

import (
	"sync"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/receiver/admission"
)

// States of a session, as Status shows them.
const (
	stateHello     = "hello"            // sends HELLO and the log
	stateWaiting   = "waiting"          // in the queue
	statePlanning  = "planning"         // admitted, makes or sends its plan
	stateNoRoom    = "waiting for room" // in the queue, with its plan
	stateReceiving = "receiving"        // sends pages
	stateSealing   = "sealing"          // the receiver seals the dump
)

// view is the state of a running session for Status.
type view struct {
	mu     sync.Mutex
	state  string
	since  time.Time // of state
	w      *dumpdir.Writer
	ticket *admission.Ticket
	reason string // why it waits
	pages  uint64 // of the plan; 0 until there is one
	// Two counts of durable pages, for the rate.
	before, last look
}

// look is the count of pages at one time.
type look struct {
	at    time.Time
	pages uint64
}

// rateSpan is the least time over which a rate is averaged.
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

// rate returns the recent rate in pages a second. The mutex is held.
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
