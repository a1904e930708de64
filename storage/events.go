package storage

import "sync"

// Event is a change of a dump that subscribers can wait for.
type Event int

// Events of Store.Subscribe.
const (
	LogStored Event = iota // the log is durable; pages may follow
	Sealed                 // the dump is sealed, complete or not
	Reported               // a report of the dump was stored
)

// maxHints bounds the hints that wait for one subscriber.
const maxHints = 64

// Hints distributes events to the subscribers of a store. The zero value is ready. It is safe for concurrent use.
type Hints struct {
	mu   sync.Mutex
	subs map[chan Ref]Event
}

// Subscribe implements Store.Subscribe.
func (h *Hints) Subscribe(to Event) (dumps <-chan Ref, cancel func()) {
	c := make(chan Ref, maxHints)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs == nil {
		h.subs = make(map[chan Ref]Event)
	}
	h.subs[c] = to
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs, c)
	}
}

// Give sends ref to the subscribers of ev. It never waits: a subscriber with maxHints waiting hints loses this one.
func (h *Hints) Give(ev Event, ref Ref) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c, of := range h.subs {
		if of != ev {
			continue
		}
		select {
		case c <- ref:
		default:
		}
	}
}
