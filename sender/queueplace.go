package sender

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// How long the sender may stay at one place in a receiver's queue before it looks for another receiver. The limit is
// queueLookFull for a receiver that has pages, because another one would start without any.
const (
	queueLook     = 2 * time.Minute
	queueLookFull = 5 * queueLook
)

// queueError means that the sender left a queue because another receiver is reachable.
type queueError struct {
	place uint64
	after time.Duration
	to    string
}

func (e *queueError) Error() string {
	return fmt.Sprintf("place %d in the queue for %v without moving up; trying %s", e.place, e.after.Round(time.Second), e.to)
}

// queuePlace is the place in the receiver's queue. It holds from a WAIT with a place until the next answer.
type queuePlace struct {
	mu    sync.Mutex
	place uint64 // 0: not in the queue
	since time.Time
}

// waiting notes a WAIT.
func (q *queuePlace) waiting(w *protocol.Wait) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.Place > 0 && (q.place == 0 || w.Place < q.place) {
		q.since = time.Now()
	}
	q.place = w.Place
}

// answered notes that the receiver has answered.
func (q *queuePlace) answered() { q.waiting(new(protocol.Wait)) }

func (q *queuePlace) waited() (place uint64, after time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.place, time.Since(q.since)
}

// queueLimit is how long the sender waits at one place in the queue of t.
func queueLimit(t *target) time.Duration {
	if t.pages > 0 {
		return queueLookFull
	}
	return queueLook
}

// watchQueue ends the session by cancel if its place in the queue has not improved for limit and another target is
// reachable. The sender leaves each queue only once, so that it reaches its turn even if all receivers let it wait.
func (s *session) watchQueue(ctx context.Context, cancel context.CancelCauseFunc, limit time.Duration) {
	if len(s.targets) < 2 {
		return
	}
	tick := time.NewTicker(firstRefusedBackoff) // how often a target that is down is tried
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		place, after := s.queue.waited()
		if place == 0 || after < limit {
			continue
		}
		if to := s.reachable(ctx); to != nil {
			cancel(&queueError{place: place, after: after, to: to.addr})
			return
		}
	}
}

// reachable returns another target that answers and whose queue the sender has not left before. Only this goroutine uses
// other targets during a session.
func (s *session) reachable(ctx context.Context) *target {
	for _, t := range s.targets {
		if t == s.target || t.over || t.leftQueue || t.next.After(time.Now()) {
			continue
		}
		dctx, cancel := context.WithTimeout(ctx, secondLook)
		nc, err := s.opts.Dial(dctx, t.addr)
		cancel()
		if err == nil {
			_ = nc.Close()
			return t
		}
	}
	return nil
}
