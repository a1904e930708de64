package remotefs

import (
	"sync"
	"time"
)

const (
	// leastWindow is always allowed in flight, in bytes: two pieces, so that the line is not idle between them.
	leastWindow = 2 * (leastPiece + flightCost)
	// firstWindow is allowed before anything is known of the line, in bytes: one run of small writes.
	firstWindow = blockLen + flightCost
	// leastPiece is the length of a piece on a slow line, in bytes. Less would be mostly headers.
	leastPiece = 8 << 10
	// pieces of a window are in flight at the same time.
	pieces = 4
	// maxFlights bounds the writes in flight, whatever their lengths: each has a goroutine.
	maxFlights = 256
	// flightCost is what the headers of a request and its answer count for, in bytes.
	flightCost = 512
	// lineTime is how long the line may need for what is in flight, beside the round trip. A heartbeat waits behind that a few
	// times, once for each of its calls, and has to be over long before the lock is stale.
	lineTime = time.Second
)

// window bounds the bytes that are in flight in one direction by what the line carries in a short time. On a slow line, more would
// only stand before what comes later, such as the heartbeat of the lock. On a fast one, it is the full amount. It starts small and
// doubles, as that of TCP does, while somebody waits for it and answers come in time.
type window struct {
	most  int64         // bytes
	whole int           // the longest piece, in bytes
	delay time.Duration // the longest time for an answer

	mu       sync.Mutex
	room     sync.Cond
	limit    int64 // bytes
	flying   int64 // bytes
	flights  int
	answered int64  // bytes, all that ever were
	late     bool   // an answer took longer than delay
	waits    uint64 // counts the times that somebody waited for this window
}

// flight is a request that is in flight.
type flight struct {
	bytes, answered int64 // its cost, and what had been answered when it began
	waits           uint64
	begun           time.Time
}

// newWindow returns a window of at most most bytes, for pieces of at most whole bytes, on a line with a round trip.
func newWindow(most int64, whole int, trip time.Duration) *window {
	w := &window{most: max(most, leastWindow), whole: whole, delay: lineTime + trip}
	w.limit = min(firstWindow, w.most)
	w.room.L = &w.mu
	return w
}

// size is the window, in bytes.
func (w *window) size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.limit
}

// piece returns the length of one request, in bytes.
func (w *window) piece() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	least := int64(blockLen) // so that runs are not cut up
	if w.late {
		least = leastPiece
	}
	return int(min(max(w.limit/pieces, least), int64(w.whole)))
}

// acquire begins a flight of n bytes of data. It waits until there is room.
func (w *window) acquire(n int) flight {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.flights > 0 && (w.flying+int64(n)+flightCost > w.limit || w.flights >= maxFlights) {
		w.waits++
		w.room.Wait()
	}
	return w.begin(n)
}

// start begins a flight without room. Its caller has looked at size.
func (w *window) start(n int) flight {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.begin(n)
}

// begin begins a flight. mu is held.
func (w *window) begin(n int) flight {
	f := flight{bytes: int64(n) + flightCost, answered: w.answered, waits: w.waits, begun: time.Now()}
	w.flying += f.bytes
	w.flights++
	return f
}

// wait notes that somebody waits for an answer.
func (w *window) wait() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waits++
}

// end ends a flight.
func (w *window) end(f flight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flying -= f.bytes
	w.flights--
	w.answered += f.bytes
	// What was answered during the flight is what the line carried in this time, if that was busy.
	took := time.Since(f.begun)
	carries := float64(w.answered-f.answered) * float64(w.delay)
	switch {
	case took > w.delay:
		w.late = true
		w.limit = max(leastWindow, min(w.limit, int64(carries/float64(took))))
	case f.waits != w.waits && carries > float64(w.limit)*float64(took):
		w.limit = min(w.most, w.limit+f.bytes)
	}
	w.room.Broadcast()
}
