package sender

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// answerFactor times the stall timeout is what an answer may take whose work grows with
// the dump: laying out a plan, reading a sealed file back.
const answerFactor = 10

// stallError means that a receiver lives but takes the dump no further.
type stallError struct{ after time.Duration }

func (e *stallError) Error() string {
	return fmt.Sprintf("no progress from the receiver for %v", e.after.Round(time.Second))
}

// stallTimer runs while the sender waits for the receiver: for an answer, or for room for a chunk. The time
// that this side takes for itself, such as a read of the dump that does not come back, does not count.
type stallTimer struct {
	mu    sync.Mutex
	since time.Time
	// limit is how long the receiver may take, nil while the timer stands; 0 is for ever.
	limit func() time.Duration
}

// start starts the timer. It runs until the function that start returns is called.
func (t *stallTimer) start(limit func() time.Duration) (end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since, t.limit = time.Now(), limit
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.limit = nil
	}
}

// restart begins to count anew: the receiver has made progress.
func (t *stallTimer) restart() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = time.Now()
}

// running reports whether the sender waits for the receiver.
func (t *stallTimer) running() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.limit != nil
}

// expired returns a *stallError when the receiver has taken too long.
func (t *stallTimer) expired() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.limit == nil {
		return nil
	}
	d, limit := time.Since(t.since), t.limit()
	if limit == 0 || d < limit {
		return nil
	}
	return &stallError{d}
}

// soon and later are limits of a stallTimer: for an answer, and for one whose work grows with the dump.
func (j *job) soon() time.Duration  { return j.opts.Stall }
func (j *job) later() time.Duration { return answerFactor * j.opts.Stall }

// watchStall ends the session by cancel when the receiver has made no progress for too long.
func (s *session) watchStall(ctx context.Context, cancel context.CancelCauseFunc) {
	if s.opts.Stall == 0 {
		return
	}
	tick := time.NewTicker(min(max(s.opts.Stall/8, time.Millisecond), signEvery))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.stall.expired(); err != nil {
			cancel(err)
			return
		}
	}
}
