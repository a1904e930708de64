package sender

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/corehaul/corehaul/protocol"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// Times of a connection.
const (
	dialTimeout  = 15 * time.Second
	secondLook   = 5 * time.Second // limit of a dial while another connection is open
	sealingGrace = time.Minute     // limit of the seal after the deadline
	// maxOverrun is how long the sender waits beyond its patience for a receiver that said when to come back.
	maxOverrun = time.Minute
)

// next returns the target to try next, now or at its time. It returns nil when it is time to give up, but not before
// every target was tried once.
func (j *job) next() *target {
	t := j.targets.nextToTry(time.Now())
	if t == nil || j.late {
		return t
	}
	end := j.meter.lastProgress().Add(j.opts.Patience)
	if t.tries > 0 && (!time.Now().Before(end) || t.next.After(end.Add(maxOverrun))) {
		return j.targets.untried()
	}
	return t
}

// attemptAt tries one target. If it returns neither a result nor an error, the caller may try again.
func (j *job) attemptAt(ctx, stop context.Context, t *target) (*Result, error) {
	res, t, err := j.try(ctx, stop, t)
	switch {
	case err == nil && j.wantsMore(res):
		t.over, t.err = true, &protocol.Error{Code: protocol.CodeDeclined, Text: "it took the log only" + because(res.DeclinedWhy), Remote: true}
		if j.logOnly == nil {
			j.logOnly = res
		}
		j.log("%s took the log only%s", t.addr, because(res.DeclinedWhy))
		return nil, nil // the next target may want more
	case err == nil:
		return res, nil
	}
	err = corehaultls.Explain(err)
	t.fail(err, time.Now())
	if end := j.meter.lastProgress().Add(j.opts.Patience); retryAfter(err) == 0 && t.next.After(end) {
		t.next = end // the last try, or, if the patience is over, none
	}
	switch {
	case ctx.Err() != nil:
		return nil, nil // send says why it ended
	case errors.Is(err, protocol.CodeSuperseded):
		// Another sender sends this dump. Another try would only interrupt it.
		return nil, j.failure(false)
	case final(err) && !j.opts.Stubborn, j.hopeless(t, err), j.late && t.pages == 0, j.opts.Patience == 0:
		t.over = true
		j.log("%s: %v; not tried again", t.addr, err)
	case !t.next.After(time.Now()):
		j.log("%s: %v", t.addr, err) // the patience is over
	default:
		j.log("%s: %v; next try in %.1f s", t.addr, err, time.Until(t.next).Seconds())
	}
	return nil, nil // try on
}

// hopeless reports whether err ends a target that nobody can repair.
func (j *job) hopeless(t *target, err error) bool {
	return j.opts.Final != nil && j.opts.Final(t.addr) && (permanent(err) || errors.Is(err, protocol.CodeNoSpace))
}

// sealLocal seals what a local target has when no target took the dump: no receiver is going to do that. It returns nil if
// there is none, if it fails, or if another target has more pages, so that its failure tells more.
func (j *job) sealLocal(ctx, stop context.Context) *Result {
	t := j.targets.unsealed()
	if t == nil || j.late || ctx.Err() != nil {
		return nil
	}
	j.gaveUp = true
	ctx, cancel := context.WithTimeout(ctx, sealingGrace)
	defer cancel()
	stop, now := context.WithCancel(stop)
	now()
	res, _, err := j.try(ctx, stop, t)
	switch {
	case err != nil:
		j.log("%s: what it has cannot be sealed: %v", t.addr, err)
		return nil
	case !j.targets.fullest(t):
		return nil
	}
	return res
}

// wantsMore reports whether the receiver chose to take the log only. Another receiver may take all.
func (j *job) wantsMore(res *Result) bool {
	return res.State == protocol.StateLogOnly && !j.opts.LogOnly && (res.Declined || res.Known)
}

// ended returns the error for the end of ctx: that of the deadline, or one that says what is stored and where.
func (j *job) ended(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), ErrDeadline) {
		return j.failure(true)
	}
	e := &InterruptedError{Err: ctx.Err()}
	planned := j.meter.Progress().Planned
	for _, t := range j.targets {
		if t.logStored || t.pages > 0 {
			e.Stored = append(e.Stored, TargetError{Target: t.addr, LogStored: true, Pages: t.pages, Planned: planned})
		}
	}
	return e
}

// pause waits until a time that has not come yet, and reports whether it has come. It ends earlier with the deadline if that has
// not come yet, with Options.Again, and with ctx: then another target may be the next one.
func (j *job) pause(ctx, stop context.Context, until time.Time) bool {
	if !time.Now().Before(until) {
		return true
	}
	j.meter.setState("waiting to reconnect")
	deadline := stop.Done()
	if j.late {
		deadline = nil
	}
	for {
		left := time.Until(until)
		if left <= 0 {
			return true
		}
		select {
		case <-time.After(min(left, signEvery)):
			j.meter.step() // waiting is not a hang
		case <-j.opts.Again:
			j.targets.wake(time.Now())
			return false
		case <-deadline:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// connect connects to t. A target that was unreachable and has more pages may be back too, and is then preferred.
func (j *job) connect(ctx, stop context.Context, t *target) (net.Conn, *target, error) {
	nc, err := j.dial(ctx, stop, t, dialTimeout)
	if err != nil {
		return nil, t, err
	}
	better := j.targets.fuller(t, time.Now())
	if better == nil {
		return nc, t, nil
	}
	other, err := j.dial(ctx, stop, better, secondLook)
	if err != nil {
		return nc, t, nil //nolint:nilerr // the better target is still unreachable
	}
	_ = nc.Close()
	return other, better, nil
}

func (j *job) dial(ctx, stop context.Context, t *target, timeout time.Duration) (net.Conn, error) {
	j.meter.setState("connecting to %s", t.addr)
	j.attempt++
	t.tries++
	t.asked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if !j.late && !j.gaveUp {
		// At the deadline, the target with the most pages is tried first.
		defer context.AfterFunc(stop, cancel)()
	}
	nc, err := j.opts.Dial(ctx, t.addr)
	if err == nil {
		if c, ok := nc.(*depotConn); ok {
			t.depot, t.local = true, c.line.local
		}
		return nc, nil
	}
	if permanent(err) {
		return nil, err
	}
	return nil, &dialError{err}
}

// try runs one session with t or, if it is back, a target with more pages. It returns the target that it used.
func (j *job) try(ctx, stop context.Context, t *target) (*Result, *target, error) {
	nc, t, err := j.connect(ctx, stop, t)
	if err != nil {
		return nil, t, err
	}
	j.log("connected to %s", t.addr)
	out, err := j.session(ctx, stop, nc, t)
	if err != nil {
		return nil, t, err
	}
	p := j.meter.Progress()
	j.meter.setState("done")
	return &Result{
		Sealed: *out.sealed, Reason: out.reason, ReasonText: out.text, Declined: out.declined, DeclinedWhy: out.why, Known: out.known, Target: t.addr,
		Lost: p.Lost, LostNotes: j.meter.lostLines(), BytesSent: p.BytesSent, Sessions: j.attempt, Elapsed: p.Elapsed,
	}, t, nil
}
