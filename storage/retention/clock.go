package retention

import (
	"fmt"
	"time"
)

// Clock is the time, and how far it can be trusted. A receiver with an empty battery may believe that it is 1970 or 2100.
// Neither may empty the store.
type Clock struct {
	Now time.Time
	// Steady is how long the caller has seen the clock agree with the monotonic one.
	Steady time.Duration
	// Jumped says that the two did not always agree while the caller watched.
	Jumped bool
	// Trusted says that a person vouches for the clock.
	Trusted bool
}

const (
	// clockSlack is how wrong a clock may be without harm.
	clockSlack = time.Hour
	// steadyEnough is after how long a steady clock is trusted: by then, somebody would have corrected a wrong one.
	steadyEnough = 24 * time.Hour
)

// doubt returns why the clock cannot be trusted for removing old dumps. It is empty if the clock can be trusted.
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
	since   time.Duration // monotonic time since which the two agree
	wall    time.Time     // wall clock at the last look
	at      time.Duration // monotonic clock at the last look
	jumped  bool
	started bool
}

// look reads both clocks.
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
