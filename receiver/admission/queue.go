package admission

import (
	"container/list"
	"sync"
	"time"
)

// Queue hands out a fixed number of slots, first come, first served. A ticket that cannot
// go on for a reason of its own (a hold, its host's share of the slots, no room for its
// dump) keeps its place and lets others pass: waiting senders never block others.
// Room is handed out in order too: see maxOvertaken. It is safe for concurrent use.
type Queue struct {
	mu      sync.Mutex
	slots   int            // free ones
	perHost int            // slots that one host may have; 0 for no limit
	hosts   map[string]int // slots that each host has
	arrived uint64         // tickets handed out
	waiting list.List      // of *Ticket, by arrival
	holders map[*Ticket]struct{}
	// space returns the bytes that dumps may still take; bounded is false when there is no limit.
	space    func() (free uint64, bounded bool)
	reviewed time.Time
}

// maxOvertaken is how many dumps that are small enough may overtake one that waits for
// room. After that, free space is reserved for it: small dumps could otherwise eat up
// all that ever becomes free. By default it is no less than the number of slots.
const maxOvertaken = 8

// NewQueue returns a queue with so many slots, of which one host may have perHost (0 for no limit).
// space returns the bytes that dumps may still take; it must not block, and is called with the queue locked.
func NewQueue(slots, perHost int, space func() (free uint64, bounded bool)) *Queue {
	return &Queue{slots: slots, perHost: perHost, hosts: map[string]int{}, space: space, holders: map[*Ticket]struct{}{}}
}

// Ticket is one session's place in the queue, and its slot once it is admitted. It stays valid from Join to Leave.
type Ticket struct {
	q       *Queue
	host    string
	arrived uint64
	changed chan struct{} // holds one signal when place or obstacle changed

	// Under q.mu.
	elem      *list.Element // nil once it is admitted, or has left
	admitted  bool
	place     int
	hold      string
	why       Obstacle
	overtaken int
	need      uint64        // bytes it asks for; 0 until that is known
	left      func() uint64 // bytes that it is still going to take, once it is admitted
}

// Obstacle is what keeps a ticket waiting.
type Obstacle int

// What may keep a ticket waiting.
const (
	ObstacleTurn     Obstacle = iota // others come first
	ObstacleHold                     // its own session does not want it admitted: see Ticket.Hold
	ObstacleHost                     // its host has all the slots that it may have
	ObstacleRoom                     // there is no room for its dump
	ObstacleReserved                 // there is room, but it is reserved for a dump that has waited longer
)

// Join takes a place in the queue. The caller must leave the ticket in the end. A hold
// keeps it from being admitted until it is lifted.
func (q *Queue) Join(host, hold string) *Ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.arrived++
	t := &Ticket{q: q, host: host, arrived: q.arrived, hold: hold, changed: make(chan struct{}, 1)}
	q.enqueue(t)
	q.admitWaiting()
	return t
}

// enqueue puts t in its place by arrival. The mutex is held.
func (q *Queue) enqueue(t *Ticket) {
	t.place = 0
	for e := q.waiting.Back(); e != nil; e = e.Prev() {
		if e.Value.(*Ticket).arrived < t.arrived { // the list holds nothing else
			t.elem = q.waiting.InsertAfter(t, e)
			return
		}
	}
	t.elem = q.waiting.PushFront(t)
}

// Leave gives the slot or the place back. It may be called twice.
func (t *Ticket) Leave() {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if !t.remove() {
		return
	}
	t.place = 0
	t.q.admitWaiting()
}

// remove takes t out of the queue and reports whether it was in it. The mutex is held.
func (t *Ticket) remove() bool {
	q := t.q
	switch {
	case t.admitted:
		t.admitted = false
		delete(q.holders, t)
		q.slots++
		if q.hosts[t.host]--; q.hosts[t.host] == 0 {
			delete(q.hosts, t.host)
		}
	case t.elem != nil:
		q.waiting.Remove(t.elem)
		t.elem = nil
	default:
		return false
	}
	return true
}

// RequestRoom asks for need bytes; left returns how many are still to come once t is admitted.
// The ticket gives up its slot and takes the place that it had, so that a session that waits for room keeps no slot.
// The slot comes back at once when there is room and nobody came earlier. A hold keeps it from being admitted.
func (t *Ticket) RequestRoom(need uint64, hold string, left func() uint64) {
	q := t.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if !t.remove() {
		return
	}
	t.need, t.hold, t.left = need, hold, left
	q.enqueue(t)
	q.admitWaiting()
}

// SetHold sets or, with an empty text, lifts the hold. A hold on a ticket that is admitted costs
// it the slot.
func (t *Ticket) SetHold(hold string) {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.hold == hold {
		return
	}
	t.hold = hold
	if t.admitted && t.remove() {
		t.q.enqueue(t)
	}
	t.q.admitWaiting()
}

// Review looks whether somebody can be admitted now, for instance because there is more
// room on the disk. Waiting sessions call it now and then; it does nothing when the last look is more recent than every.
func (q *Queue) Review(every time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.reviewed) >= every {
		q.admitWaiting()
	}
}

// admitWaiting admits every ticket that can be, in order, and tells those whose place or obstacle
// changed. The mutex is held.
func (q *Queue) admitWaiting() {
	q.reviewed = time.Now()
	supply := q.supply()
	var blocked []*Ticket // those that wait for room
	place := 0
	for e := q.waiting.Front(); e != nil; {
		t := e.Value.(*Ticket) // the list holds nothing else
		e = e.Next()
		why := q.obstacle(t, supply)
		switch {
		case why == ObstacleRoom:
			blocked = append(blocked, t)
			supply.reserved = supply.reserved || t.overtaken >= maxOvertaken
		case why == ObstacleTurn && q.slots > 0:
			q.admit(t)
			if t.need > 0 {
				supply.subtract(t.need)
				for _, b := range blocked {
					b.overtaken++
				}
			}
			continue
		}
		place++
		t.set(place, why)
	}
}

// obstacle returns what is in the way of t, ObstacleTurn when nothing but others is.
func (q *Queue) obstacle(t *Ticket, s *supply) Obstacle {
	switch {
	case t.hold != "":
		return ObstacleHold
	case q.perHost > 0 && q.hosts[t.host] >= q.perHost:
		return ObstacleHost
	case t.need == 0 || !s.bounded:
		return ObstacleTurn
	case t.need > s.free:
		return ObstacleRoom
	case s.reserved:
		return ObstacleReserved
	}
	return ObstacleTurn
}

// admit gives t a slot. The mutex is held.
func (q *Queue) admit(t *Ticket) {
	q.waiting.Remove(t.elem)
	q.slots--
	q.hosts[t.host]++
	q.holders[t] = struct{}{}
	t.elem, t.admitted, t.overtaken = nil, true, 0
	t.set(0, ObstacleTurn)
}

// set notes place and obstacle and tells the session when they changed. The mutex is held.
func (t *Ticket) set(place int, why Obstacle) {
	if t.place == place && t.why == why && place != 0 {
		return
	}
	t.place, t.why = place, why
	select {
	case t.changed <- struct{}{}:
	default: // the signal before is not read yet; its reader sees the newest state
	}
}

// supply is the space that is left while admitWaiting goes through the queue.
type supply struct {
	free     uint64
	bounded  bool
	reserved bool // for a ticket further ahead
}

func (s *supply) subtract(n uint64) { s.free -= min(n, s.free) }

// supply returns what is free beyond what admitted dumps are still going to take. Nobody asks
// the disk when nobody asks for room. The mutex is held.
func (q *Queue) supply() *supply {
	asked := false
	for e := q.waiting.Front(); e != nil && !asked; e = e.Next() {
		asked = e.Value.(*Ticket).need > 0 // the list holds nothing else
	}
	if !asked {
		return new(supply)
	}
	free, bounded := q.space()
	s := &supply{free: free, bounded: bounded}
	s.subtract(q.reserved("", nil))
	return s
}

// reserved is Reserved with the mutex held.
func (q *Queue) reserved(host string, except *Ticket) uint64 {
	sum := uint64(0)
	for t := range q.holders {
		if t != except && t.left != nil && (host == "" || t.host == host) {
			sum += t.left()
		}
	}
	return sum
}

// Reserved returns the bytes that admitted dumps, of one host unless it is empty, are
// still going to take, except one.
func (q *Queue) Reserved(host string, except *Ticket) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.reserved(host, except)
}

// Waiting returns how many tickets wait.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting.Len()
}

// Admitted returns how many tickets have a slot.
func (q *Queue) Admitted() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.holders)
}

// Changed returns a channel that has a value whenever place or obstacle may have changed.
func (t *Ticket) Changed() <-chan struct{} { return t.changed }

// Position returns the place in the queue, 1 for the first, 0 once admitted, and what keeps t there.
func (t *Ticket) Position() (place int, why Obstacle) {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return t.place, t.why
}

// Hold returns why its own session does not want t admitted; empty when it does.
func (t *Ticket) Hold() string {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return t.hold
}

// Needs returns the bytes that t asks for or, once it is admitted, is still going to take.
func (t *Ticket) Needs() uint64 {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.admitted && t.left != nil {
		return t.left()
	}
	return t.need
}
