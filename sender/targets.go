package sender

import (
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// When a target is tried again.
const (
	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 15 * time.Second
	// After a refusal that waiting alone does not cure.
	firstRefusedBackoff = 10 * time.Second
	maxRefusedBackoff   = time.Minute
	// loyalty is how long a lost target with pages is tried before the others, which have no pages yet: receivers
	// restart and lines flap. If the target is down for good, fail-over takes this much longer.
	loyalty        = 10 * time.Second
	maxLoyalPause  = 2 * time.Second
	lookAgainAfter = 5 * time.Second
)

// target is one receiver and what the sender knows of it.
type target struct {
	addr      string
	logStored bool
	// pages of the plan are durable there, as far as the receiver has acknowledged.
	pages uint64
	tries uint64
	// asked and tried are when the last try began and ended.
	asked, tried time.Time
	// next is the earliest time of the next try, pause the backoff after its failure.
	next  time.Time
	pause time.Duration
	// loyal is the time until which it comes before other targets.
	loyal time.Time
	// dark means that the last try reached nobody.
	dark bool
	// leftQueue means that the sender left its queue, because the queue did not move.
	leftQueue bool
	// depot means that this process writes the dump directory there.
	depot bool
	// local means that only this process seals what the target has.
	local bool
	// over means that it is not tried again.
	over bool
	err  error
}

// targets are in the order of the configuration, best first.
type targets []*target

func newTargets(addrs []string) targets {
	var list targets
	for _, a := range addrs {
		list = append(list, &target{addr: a, pause: firstBackoff})
	}
	return list
}

// nextToTry returns the next target, nil if none is left. The caller may have to wait until the time of the target. A
// target that was just lost and has pages comes first, then the target that has waited longest.
func (ts targets) nextToTry(now time.Time) *target {
	var best *target
	for _, t := range ts {
		switch {
		case t.over:
		case t.loyal.After(now):
			return t
		case best == nil || t.before(best, now):
			best = t
		}
	}
	return best
}

// before reports whether t is to be tried before u, which is earlier in the list.
func (t *target) before(u *target, now time.Time) bool {
	switch early, late := t.next.After(now), u.next.After(now); {
	case early && late:
		return t.next.Before(u.next)
	case early != late:
		return late
	case !t.tried.Equal(u.tried):
		return t.tried.Before(u.tried)
	}
	return t.pages > u.pages
}

// ladder returns the encodings for t. A depot in this process makes page records of blocks before it writes them: over the line
// go pages in snappy, which are larger than those in zstd. In a local directory, zstd only costs time, because a wait for the
// disk looks like one for a slow line. On busy cores, "auto" took 6.2 s with all encodings and 3.7 s with snappy alone.
func (t *target) ladder(all []protocol.Encoding) []protocol.Encoding {
	blocks := slices.IndexFunc(all, func(e protocol.Encoding) bool { return !e.Pages() })
	switch {
	case t.local:
		return all[:1]
	case t.depot && blocks > 0:
		return all[:blocks]
	}
	return all
}

// unsealed returns the local target with the most pages, nil if none has pages.
func (ts targets) unsealed() *target {
	var best *target
	for _, t := range ts {
		if t.local && t.pages > 0 && (best == nil || t.pages > best.pages) {
			best = t
		}
	}
	return best
}

// fullest reports whether no target has more pages than t.
func (ts targets) fullest(t *target) bool {
	return !slices.ContainsFunc(ts, func(u *target) bool { return u.pages > t.pages })
}

// untried returns the first target that was not tried yet, nil if there is none.
func (ts targets) untried() *target {
	for _, t := range ts {
		if t.tries == 0 && !t.over {
			return t
		}
	}
	return nil
}

// fuller returns the target with the most pages, if it has more than t and was unreachable at its last try, which began
// lookAgainAfter ago or earlier. Otherwise it returns nil.
func (ts targets) fuller(t *target, now time.Time) *target {
	best := t
	for _, u := range ts {
		if !u.over && u.pages > best.pages {
			best = u
		}
	}
	if best == t || !best.dark || now.Sub(best.asked) < lookAgainAfter {
		return nil
	}
	return best
}

// lastCall makes all targets due for another try, those with the most pages first.
func (ts targets) lastCall() {
	for _, t := range ts {
		t.tried, t.next, t.loyal, t.pause = time.Time{}, time.Time{}, time.Time{}, firstBackoff
	}
}

// wake makes all targets due that could not be reached, the best first.
func (ts targets) wake(now time.Time) {
	for _, t := range ts {
		if t.dark {
			t.tried, t.next, t.pause = time.Time{}, now, firstBackoff
		}
	}
}

// gained notes that a session made pages durable. The backoff starts again, and the target is tried before others.
func (t *target) gained(now time.Time) {
	t.pause, t.loyal = firstBackoff, now.Add(loyalty)
}

// fail notes why a try failed and decides when the next one may begin.
func (t *target) fail(err error, now time.Time) {
	t.tried, t.err = now, err
	_, t.dark = errors.AsType[*dialError](err)
	if _, ok := errors.AsType[*queueError](err); ok {
		t.leftQueue = true
	}
	limit := maxBackoff
	if permanent(err) {
		t.pause, limit = max(t.pause, firstRefusedBackoff), maxRefusedBackoff
	}
	// Half of the pause is random, so that machines that crashed together do not come back together.
	d := t.pause/2 + rand.N(t.pause/2+1)
	t.pause = min(2*t.pause, limit)
	switch after := retryAfter(err); {
	case !passing(err):
		t.loyal = time.Time{}
		if after > 0 {
			d = after + rand.N(after/8+1)
		}
	case t.loyal.After(now):
		d = min(d, maxLoyalPause)
	}
	t.next = now.Add(d)
}

// retryAfter returns how long the receiver asks the sender to stay away, 0 if it does not say.
func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*protocol.Error](err); ok && e.Remote {
		return e.RetryAfter
	}
	return 0
}

// passing reports whether the same target may work again in seconds: after a cut line, or a restart of the receiver. A
// target that timed out, stalled, let the sender wait in its queue, refused for good or named a time does not.
func passing(err error) bool {
	if e, ok := errors.AsType[*dialError](err); ok {
		var ne net.Error
		return !errors.As(e.err, &ne) || !ne.Timeout()
	}
	_, stalled := errors.AsType[*stallError](err)
	_, queued := errors.AsType[*queueError](err)
	return !stalled && !queued && !permanent(err) && retryAfter(err) == 0
}

// final reports whether only a repair makes another try at the same receiver useful.
func final(err error) bool {
	_, early := errors.AsType[*refusedError](err)
	return permanent(err) && !early
}

// permanent reports whether another try at the same receiver is useless until somebody repairs something or, after a
// *refusedError, until the server has started.
func permanent(err error) bool {
	if _, ok := errors.AsType[*refusedError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*handshakeError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*localError](err); ok {
		return true
	}
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return !e.Code.Temporary()
	}
	// In TLS 1.3, the peer's alert about our certificate comes with the first read.
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return true
	}
	return false
}
