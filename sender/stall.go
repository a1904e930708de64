package sender

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// answerFactor extends the stall timeout for answers whose work grows with the dump: to lay out the file, or to read it
// back for the seal.
const answerFactor = 10

// stallError means that a receiver is alive but makes no progress.
type stallError struct{ after time.Duration }

func (e *stallError) Error() string {
	return fmt.Sprintf("no progress from the receiver for %v", e.after.Round(time.Second))
}

// stallTimer runs while the sender waits for the receiver: for an answer, or until a chunk fits the window. The time that
// the sender itself takes does not count, for example a read of the dump that does not return.
type stallTimer struct {
	mu    sync.Mutex
	since time.Time
	// limit is how long the receiver may take, 0 means no limit. It is nil while the timer is stopped.
	limit func() time.Duration
}

// start starts the timer. end stops it.
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

// restart counts from now on, because the receiver has made progress.
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

// soon and later are limits of a stallTimer: for most answers, and for answers whose work grows with the dump.
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
