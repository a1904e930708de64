package admission

import (
	"container/list"
	"sync"
	"time"
)

// Queue hands out a fixed number of slots in order of arrival. If something blocks only one ticket (a hold, its host's
// share of the slots, no room for its dump), the ticket keeps its place and others pass it. So waiting senders never block
// others. The queue hands out room in order too: see maxOvertaken. A Queue is safe for concurrent use.
type Queue struct {
	mu      sync.Mutex
	slots   int            // free slots
	perHost int            // slots that one host may have; 0: no limit
	hosts   map[string]int // slots that each host has
	arrived uint64         // number of tickets so far
	waiting list.List      // of *Ticket, by arrival
	holders map[*Ticket]struct{}
	// space returns the bytes that dumps may still take. bounded is false if there is no limit.
	space    func() (free uint64, bounded bool)
	reviewed time.Time
}

// maxOvertaken is how many small dumps may overtake one that waits for room. After that, free space is reserved for it.
// Otherwise small dumps could use up all space that becomes free. It is not below the default number of slots.
const maxOvertaken = 8

// NewQueue returns a queue with slots, of which one host may have perHost (0: no limit). space returns the bytes that
// dumps may still take. It must not block, because it is called with the queue locked.
func NewQueue(slots, perHost int, space func() (free uint64, bounded bool)) *Queue {
	return &Queue{slots: slots, perHost: perHost, hosts: map[string]int{}, space: space, holders: map[*Ticket]struct{}{}}
}

// Ticket is one session's place in the queue, and its slot once it is admitted. It stays valid from Join to Leave.
type Ticket struct {
	q       *Queue
	host    string
	arrived uint64
	changed chan struct{} // has a signal when place or obstacle has changed

	// Under q.mu.
	elem      *list.Element // nil once the ticket is admitted or has left
	admitted  bool
	place     int
	hold      string
	why       Obstacle
	overtaken int
	need      uint64        // requested bytes; 0 until known
	left      func() uint64 // bytes that its dump still needs, once it is admitted
}

// Obstacle is what keeps a ticket waiting.
type Obstacle int

// What may keep a ticket waiting.
const (
	ObstacleTurn     Obstacle = iota // others come first
	ObstacleHold                     // its session holds it: see Ticket.Hold
	ObstacleHost                     // its host has all slots that it may have
	ObstacleRoom                     // there is no room for its dump
	ObstacleReserved                 // the room is reserved for a dump that has waited longer
)

// Join takes a place in the queue. The caller must call Leave in the end. With a hold, the ticket is not admitted until the
// hold is lifted.
func (q *Queue) Join(host, hold string) *Ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.arrived++
	t := &Ticket{q: q, host: host, arrived: q.arrived, hold: hold, changed: make(chan struct{}, 1)}
	q.enqueue(t)
	q.admitWaiting()
	return t
}

// enqueue inserts t by arrival. The mutex is held.
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

// Leave gives up the slot or the place. It may be called twice.
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

// RequestRoom asks for need bytes. left returns how many bytes the dump still needs once t is admitted. The ticket gives up
// its slot and takes its old place, so that a session that waits for room has no slot. It gets a slot again at once if
// there is room and no earlier ticket waits. With a hold, it is not admitted.
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

// SetHold sets the hold or, with an empty text, lifts it. A hold takes the slot of an admitted ticket.
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

// Review admits tickets that can be admitted now, for example because the disk has more room. Waiting sessions call it now
// and then. It does nothing if the last review was less than every ago.
func (q *Queue) Review(every time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.reviewed) >= every {
		q.admitWaiting()
	}
}

// admitWaiting admits all tickets that can be admitted, in order, and signals those whose place or obstacle changed. The
// mutex is held.
func (q *Queue) admitWaiting() {
	q.reviewed = time.Now()
	supply := q.supply()
	var blocked []*Ticket // wait for room
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

// obstacle returns the obstacle of t, ObstacleTurn if only others come first.
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

// set sets place and obstacle, and signals a change to the session. The mutex is held.
func (t *Ticket) set(place int, why Obstacle) {
	if t.place == place && t.why == why && place != 0 {
		return
	}
	t.place, t.why = place, why
	select {
	case t.changed <- struct{}{}:
	default: // the reader of the last signal will see this state
	}
}

// supply is the remaining space while admitWaiting goes through the queue.
type supply struct {
	free     uint64
	bounded  bool
	reserved bool // for a ticket further ahead
}

func (s *supply) subtract(n uint64) { s.free -= min(n, s.free) }

// supply returns the free space beyond what admitted dumps still need. It asks the disk only if a ticket asks for room. The
// mutex is held.
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

// Reserved returns the bytes that admitted dumps still need, without that of except. If host is not empty, it counts only
// dumps of that host.
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

// Changed returns a channel that has a value when place or obstacle may have changed.
func (t *Ticket) Changed() <-chan struct{} { return t.changed }

// Position returns the place in the queue, from 1, or 0 once t is admitted, and the obstacle.
func (t *Ticket) Position() (place int, why Obstacle) {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return t.place, t.why
}

// Hold returns why the session holds t, empty if it does not.
func (t *Ticket) Hold() string {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return t.hold
}

// Needs returns the bytes that t asks for or, once it is admitted, still needs.
func (t *Ticket) Needs() uint64 {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.admitted && t.left != nil {
		return t.left()
	}
	return t.need
}
