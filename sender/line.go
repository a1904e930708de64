package sender

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// How long a place in a receiver's line may not come nearer before it is looked whether
// another receiver is there. Where pages are already, longer: elsewhere it begins at nothing.
const (
	lineLook     = 2 * time.Minute
	lineLookFull = 5 * lineLook
)

// lineError means that a line was left because another receiver is there.
type lineError struct {
	place uint64
	after time.Duration
	to    string
}

func (e *lineError) Error() string {
	return fmt.Sprintf("%v in line at place %d without coming nearer, and %s is there", e.after.Round(time.Second), e.place, e.to)
}

// line is the place in the receiver's line; it is held from one WAIT with a place to the
// next answer.
type line struct {
	mu    sync.Mutex
	place uint64 // 0: not in line
	since time.Time
}

// told notes a WAIT.
func (l *line) told(w *protocol.Wait) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.Place > 0 && (l.place == 0 || w.Place < l.place) {
		l.since = time.Now()
	}
	l.place = w.Place
}

// left notes that the receiver has answered.
func (l *line) left() { l.told(new(protocol.Wait)) }

func (l *line) waited() (place uint64, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.place, time.Since(l.since)
}

// lineLimit is how long t's line may stand still.
func lineLimit(t *target) time.Duration {
	if t.pages > 0 {
		return lineLookFull
	}
	return lineLook
}

// watchLine ends the session by cancel when its place in line has not come nearer for limit
// and another target is there. Each line is left once only, so that a sender whom all keep waiting does
// not go round without ever coming to its turn.
func (s *session) watchLine(ctx context.Context, cancel context.CancelCauseFunc, limit time.Duration) {
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
		place, after := s.line.waited()
		if place == 0 || after < limit {
			continue
		}
		if to := s.elsewhere(ctx); to != nil {
			cancel(&lineError{place: place, after: after, to: to.addr})
			return
		}
	}
}

// elsewhere returns another target that is there and has not kept this sender waiting
// before. The others are nobody else's business while a session runs.
func (s *session) elsewhere(ctx context.Context) *target {
	for _, t := range s.targets {
		if t == s.target || t.over || t.leftLine || t.next.After(time.Now()) {
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
