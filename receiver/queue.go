package receiver

import (
	"container/list"
	"sync"
	"time"
)

// queue lets sessions in and keeps the others in the order they came. First come, first
// served: one that cannot go on for a reason of its own (a rule, its host's share,
// no room for its plan) keeps its place and lets others pass, so that it holds nobody up.
// Room is handed out in order too: see maxPassed.
type queue struct {
	mu      sync.Mutex
	free    int            // slots
	perHost int            // slots that one host may have; 0 for no limit
	hosts   map[string]int // slots that each host has
	arrived uint64
	waiting list.List // of *ticket, by arrival
	inside  map[*ticket]struct{}
	// space returns the bytes that dumps may still take; bounded is false when there is no limit.
	space    func() (free uint64, bounded bool)
	reviewed time.Time
}

// maxPassed is how many dumps that are small enough may overtake one that waits for
// room. After that, what becomes free is kept for it: small dumps could otherwise
// eat up all that is ever made free. It is no less than what is under way at a time by default.
const maxPassed = 8

func newQueue(slots, perHost int, space func() (uint64, bool)) *queue {
	return &queue{
		free: slots, perHost: perHost, hosts: map[string]int{}, space: space, inside: map[*ticket]struct{}{},
	}
}

// ticket is one session's place in the queue. It stays valid from join to leave: a session
// inside that asks for room gives its slot back and takes the place in line that it
// had, so that who waits for room keeps no slot.
type ticket struct {
	q       *queue
	host    string
	arrived uint64
	moved   chan struct{} // holds one signal when place or obstacle changed

	// Under q.mu.
	elem   *list.Element // nil once it is in, or has left
	in     bool
	place  int
	hold   string // why its own session does not want it let in now; empty: it does
	why    obstacle
	passed int
	need   uint64        // bytes it asks for; 0 as long as that is not known
	left   func() uint64 // bytes that it is still going to take, once it is in
}

// obstacle is what keeps a ticket waiting.
type obstacle int

const (
	obstacleTurn obstacle = iota // others come first
	obstacleHold                 // ticket.hold
	obstacleHost                 // its host has all the slots that it may have
	obstacleRoom                 // no room for its plan
	obstacleKept                 // room there is, and it is kept for one that waited longer
)

// join takes a place in the queue. The caller must leave the ticket in the end. A hold
// keeps it from being let in until it is lifted.
func (q *queue) join(host, hold string) *ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.arrived++
	t := &ticket{q: q, host: host, arrived: q.arrived, hold: hold, moved: make(chan struct{}, 1)}
	q.enter(t)
	q.letIn()
	return t
}

// enter puts t in its place by arrival. The mutex is held.
func (q *queue) enter(t *ticket) {
	t.place = 0
	for e := q.waiting.Back(); e != nil; e = e.Prev() {
		if e.Value.(*ticket).arrived < t.arrived { //nolint:forcetypeassert // the list holds nothing else
			t.elem = q.waiting.InsertAfter(t, e)
			return
		}
	}
	t.elem = q.waiting.PushFront(t)
}

// leave gives the slot or the place back. It may be called twice.
func (t *ticket) leave() {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if !t.out() {
		return
	}
	t.place = 0
	t.q.letIn()
}

// out takes t out of the queue and reports whether it was in it. The mutex is held.
func (t *ticket) out() bool {
	q := t.q
	switch {
	case t.in:
		t.in = false
		delete(q.inside, t)
		q.free++
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

// ask asks for need bytes, of which left says how many are still to come once t is in.
// It gives up the slot, which comes back at once when there is room and nobody came earlier.
func (t *ticket) ask(need uint64, hold string, left func() uint64) {
	q := t.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if !t.out() {
		return
	}
	t.need, t.hold, t.left = need, hold, left
	q.enter(t)
	q.letIn()
}

// setHold sets or, with an empty text, lifts the hold. A hold on a ticket that is in costs
// it the slot.
func (t *ticket) setHold(hold string) {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.hold == hold {
		return
	}
	t.hold = hold
	if t.in && t.out() {
		t.q.enter(t)
	}
	t.q.letIn()
}

// review looks whether somebody can be let in now, for instance because there is more
// room on the disk. Waiting sessions call it now and then; once in a while is enough.
func (q *queue) review(every time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.reviewed) >= every {
		q.letIn()
	}
}

// letIn lets in everyone who can be, in order, and tells those whose place or obstacle
// changed. The mutex is held.
func (q *queue) letIn() {
	q.reviewed = time.Now()
	room := q.room()
	var passed []*ticket // those who wait for room
	place := 0
	for e := q.waiting.Front(); e != nil; {
		t := e.Value.(*ticket) //nolint:forcetypeassert // the list holds nothing else
		e = e.Next()
		why := q.obstacle(t, room)
		switch {
		case why == obstacleRoom:
			passed = append(passed, t)
			room.kept = room.kept || t.passed >= maxPassed
		case why == obstacleTurn && q.free > 0:
			q.admit(t)
			if t.need > 0 {
				room.take(t.need)
				for _, p := range passed {
					p.passed++
				}
			}
			continue
		}
		place++
		t.set(place, why)
	}
}

// obstacle returns what is in the way of t, obstacleTurn when nothing but others is.
func (q *queue) obstacle(t *ticket, r *room) obstacle {
	switch {
	case t.hold != "":
		return obstacleHold
	case q.perHost > 0 && q.hosts[t.host] >= q.perHost:
		return obstacleHost
	case t.need == 0 || !r.bounded:
		return obstacleTurn
	case t.need > r.free:
		return obstacleRoom
	case r.kept:
		return obstacleKept
	}
	return obstacleTurn
}

// admit gives t a slot. The mutex is held.
func (q *queue) admit(t *ticket) {
	q.waiting.Remove(t.elem)
	q.free--
	q.hosts[t.host]++
	q.inside[t] = struct{}{}
	t.elem, t.in, t.passed = nil, true, 0
	t.set(0, obstacleTurn)
}

// set notes place and obstacle and tells the session when they changed. The mutex is held.
func (t *ticket) set(place int, why obstacle) {
	if t.place == place && t.why == why && place != 0 {
		return
	}
	t.place, t.why = place, why
	select {
	case t.moved <- struct{}{}:
	default: // the signal before is not read yet; it reads the newest state
	}
}

// room is the space that is left while letIn goes through the queue.
type room struct {
	free    uint64
	bounded bool
	kept    bool // for somebody further ahead
}

func (r *room) take(n uint64) { r.free -= min(n, r.free) }

// room returns what is free beyond what those inside are still going to take. Nobody asks
// the disk when nobody asks for room. The mutex is held.
func (q *queue) room() *room {
	asked := false
	for e := q.waiting.Front(); e != nil && !asked; e = e.Next() {
		asked = e.Value.(*ticket).need > 0 //nolint:forcetypeassert // the list holds nothing else
	}
	if !asked {
		return new(room)
	}
	free, bounded := q.space()
	r := &room{free: free, bounded: bounded}
	r.take(q.claimed("", nil))
	return r
}

// claimed returns the bytes that those inside, of one host unless it is empty, are still
// going to take, except one. The mutex is held.
func (q *queue) claimed(host string, except *ticket) uint64 {
	sum := uint64(0)
	for t := range q.inside {
		if t != except && t.left != nil && (host == "" || t.host == host) {
			sum += t.left()
		}
	}
	return sum
}

// position returns the place in the queue, 1 for the first, 0 inside, and what keeps t there.
func (t *ticket) position() (place int, why obstacle) {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return t.place, t.why
}

// length returns how many wait.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting.Len()
}

// held returns why its own session does not want t let in.
func (t *ticket) held() string {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return t.hold
}

// reserved returns the bytes that those inside, of one host unless it is empty, are
// still going to take, except one.
func (q *queue) reserved(host string, except *ticket) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.claimed(host, except)
}

// used returns how many are in.
func (q *queue) used() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.inside)
}

// needs returns the bytes that t asks for, or, once it is in, is still going to take.
func (t *ticket) needs() uint64 {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.in && t.left != nil {
		return t.left()
	}
	return t.need
}
