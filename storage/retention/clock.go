package retention

import (
	"fmt"
	"time"
)

// Clock is what time it is, and how much that is worth. A receiver whose battery is empty may think that it is 1970,
// or 2100: neither may empty the store.
type Clock struct {
	Now time.Time
	// Steady is how long the caller has seen the clock run in step with the monotonic one.
	Steady time.Duration
	// Jumped: it did not, since the caller watches.
	Jumped bool
	// Trusted: a person says that it is right.
	Trusted bool
}

const (
	// clockSlack is what a clock may be off without harm.
	clockSlack = time.Hour
	// steadyEnough is how long a clock runs in step before it is trusted by itself: who sets clocks right would have.
	steadyEnough = 24 * time.Hour
)

// doubt says why the clock is not good enough to remove dumps for their age; empty when it is.
func (c Clock) doubt(dumps []*dump, limit time.Duration) string {
	if c.Trusted {
		return ""
	}
	sealed, vouched := false, false
	for _, x := range dumps { // newest first
		at := x.Manifest.EndTime
		if at == nil {
			continue
		}
		if at.Sub(c.Now) > clockSlack {
			return fmt.Sprintf("the clock says %s, and dump %s was sealed at %s", c.Now.UTC().Format(time.RFC3339), x.Ref, at.UTC().Format(time.RFC3339))
		}
		sealed = true
		vouched = vouched || c.Now.Sub(*at) <= limit
	}
	switch {
	case c.Steady >= steadyEnough:
		return ""
	case c.Jumped:
		return "the clock has jumped, and must run steadily for a day"
	case sealed && !vouched:
		return "every dump is older than the limit, and nothing else confirms the clock yet"
	}
	return ""
}

// watch compares the wall clock with the monotonic one.
type watch struct {
	now     func() time.Time
	mono    func() time.Duration
	since   time.Duration // on the monotonic clock: when the two were in step first
	wall    time.Time     // at the last look
	at      time.Duration
	jumped  bool
	started bool
}

// look returns the clock as it is now.
func (w *watch) look() Clock {
	wall, at := w.now().Round(0), w.mono()
	if !w.started {
		w.started, w.since = true, at
	} else if off := wall.Sub(w.wall) - (at - w.at); off.Abs() > clockSlack {
		w.since, w.jumped = at, true
	}
	w.wall, w.at = wall, at
	return Clock{Now: wall, Steady: at - w.since, Jumped: w.jumped}
}
