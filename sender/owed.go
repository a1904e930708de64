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
	return fmt.Sprintf("the receiver has moved nothing on for %v", e.after.Round(time.Second))
}

// owed knows whether the receiver is waited for, and since when: for an answer, or for
// room for a chunk. What this side takes for itself, such as a read of the dump that
// does not come back, is not counted.
type owed struct {
	mu    sync.Mutex
	since time.Time
	// limit is how long it may take, nil when nothing is owed; 0 is for ever.
	limit func() time.Duration
}

// begin notes that the receiver is waited for until the function it returns is called.
func (o *owed) begin(limit func() time.Duration) (end func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since, o.limit = time.Now(), limit
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.limit = nil
	}
}

// touch notes that the receiver has moved something on.
func (o *owed) touch() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since = time.Now()
}

// open reports whether the receiver is waited for.
func (o *owed) open() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.limit != nil
}

// overdue returns a *stallError when it has been waited for too long.
func (o *owed) overdue() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.limit == nil {
		return nil
	}
	d, limit := time.Since(o.since), o.limit()
	if limit == 0 || d < limit {
		return nil
	}
	return &stallError{d}
}

// Limits of what is owed.
func (j *job) soon() time.Duration  { return j.opts.Stall }
func (j *job) later() time.Duration { return answerFactor * j.opts.Stall }

// watchStall ends the session by cancel when the receiver owes something for too long.
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
		if err := s.owed.overdue(); err != nil {
			cancel(err)
			return
		}
	}
}

// signEvery is how often it is looked whether anything moves.
const signEvery = time.Second

// signs are what changes while a sender is not hung: a read of the dump came back, the job
// took a step, or, while the receiver is waited for, something was heard of it.
type signs struct{ reads, steps, heard uint64 }

func (j *job) signs(last signs) signs {
	now := signs{reads: j.src.image.reads.Load(), heard: last.heard}
	steps, heard := j.meter.signs()
	now.steps = steps
	if j.owed.open() {
		now.heard = heard
	}
	return now
}

// watchSigns calls Options.Alive while there are signs of life, until ctx is done.
func (j *job) watchSigns(ctx context.Context) {
	tick := time.NewTicker(signEvery)
	defer tick.Stop()
	var last signs
	for {
		if now := j.signs(last); now != last {
			last = now
			j.opts.Alive()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
