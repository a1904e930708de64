package reports

import (
	"cmp"
	"time"

	"github.com/corehaul/corehaul/storage"
)

// queue has the dumps that wait for a report. It shares time between hosts, and takes the newest dump of a host first: a host with many dumps,
// or with dumps that take long, delays the others by one dump at most.
//
// Each host has a turn, in units of time. The host with the lowest turn comes next. Its turn grows by the time that its dump took. A host
// that comes anew, or again after a pause, gets the lowest turn of all, so nobody saves up time by waiting.
type queue struct {
	arrived map[storage.Ref]time.Time // of the dumps that wait, by the clock of the receiver
	running map[string]int            // dumps of each host that were taken and are not done
	turns   map[string]time.Duration  // of hosts that are ahead of now
	now     time.Duration             // turn of the host that came last
}

func newQueue() *queue {
	return &queue{arrived: map[storage.Ref]time.Time{}, running: map[string]int{}, turns: map[string]time.Duration{}}
}

// put adds a dump, once.
func (q *queue) put(ref storage.Ref, arrived time.Time) { q.arrived[ref] = arrived }

func (q *queue) turn(host string) time.Duration { return max(q.turns[host], q.now) }

// take returns the dump that comes next. The caller calls done for it.
func (q *queue) take() (next storage.Ref, ok bool) {
	for ref := range q.arrived {
		if !ok || q.compare(ref, next) < 0 {
			next, ok = ref, true
		}
	}
	if !ok {
		return next, false
	}
	q.now = q.turn(next.Host)
	for host, turn := range q.turns {
		if turn <= q.now {
			delete(q.turns, host)
		}
	}
	delete(q.arrived, next)
	q.running[next.Host]++
	return next, true
}

// compare is below 0 if a comes before b. What of a host is under way counts first, because its time is not known yet.
func (q *queue) compare(a, b storage.Ref) int {
	return cmp.Or(
		cmp.Compare(q.running[a.Host], q.running[b.Host]), cmp.Compare(q.turn(a.Host), q.turn(b.Host)),
		q.arrived[b].Compare(q.arrived[a]), cmp.Compare(a.Host, b.Host), cmp.Compare(a.ID, b.ID))
}

// done ends a dump of a host, which took a time.
func (q *queue) done(host string, took time.Duration) {
	if q.running[host]--; q.running[host] <= 0 {
		delete(q.running, host)
	}
	q.turns[host] = q.turn(host) + took
}
