package sender

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// How long a place in a receiver's queue may not come nearer before the sender looks whether
// another receiver is there. Where pages are already, longer: elsewhere it begins at nothing.
const (
	queueLook     = 2 * time.Minute
	queueLookFull = 5 * queueLook
)

// queueError means that the sender left a queue because another receiver is there.
type queueError struct {
	place uint64
	after time.Duration
	to    string
}

func (e *queueError) Error() string {
	return fmt.Sprintf("place %d in the queue for %v without moving up; trying %s", e.place, e.after.Round(time.Second), e.to)
}

// queuePlace is the place in the receiver's queue; it is held from one WAIT with a place to the
// next answer.
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

// queueLimit is how long the queue of t may stand still.
func queueLimit(t *target) time.Duration {
	if t.pages > 0 {
		return queueLookFull
	}
	return queueLook
}

// watchQueue ends the session by cancel when its place in the queue has not come nearer for limit
// and another target is there. Each queue is left once only, so that a sender whom all keep waiting does
// not go round without ever coming to its turn.
func (s *session) watchQueue(ctx context.Context, cancel context.CancelCauseFunc, limit time.Duration) {
	if len(s.targets) < 2 {
		return
	}
	tick := time.NewTicker(firstRefusedBackoff) // a target that is down is asked so often
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
		if to := s.elsewhere(ctx); to != nil {
			cancel(&queueError{place: place, after: after, to: to.addr})
			return
		}
	}
}

// elsewhere returns another target that is there and has not kept this sender waiting
// before. The others are nobody else's business while a session runs.
func (s *session) elsewhere(ctx context.Context) *target {
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
