package sender

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// Times of a connection.
const (
	dialTimeout   = 15 * time.Second
	firstBackoff  = 500 * time.Millisecond
	maxBackoff    = 15 * time.Second
	sealingGrace  = time.Minute // what sealing may take after the deadline
	maxRetryAfter = time.Minute
)

// Options says how a dump is sent.
type Options struct {
	// To lists the targets, best first.
	To []string
	// Dial connects to them.
	Dial Dialer
	// Level is the dump level.
	Level pages.DumpLevel
	// Encoding is one of EncodingNames; empty is "auto".
	Encoding string
	// LogOnly sends the log and no pages.
	LogOnly bool
	// Deadline ends the dump early; the receiver is asked to seal what it has. Zero is none.
	Deadline time.Time
	// Patience is how long connections are tried without anything becoming durable; 0 is
	// for one round over the targets.
	Patience time.Duration
	// Stubborn tries on even after refusals that another try will hardly change: somebody
	// may mend the receiver while the patience lasts.
	Stubborn bool
	// Workers read and compress pages at the same time; 0 is one for each CPU.
	Workers int
	// Tool names this program and its version for the receiver.
	Tool string
	// MachineID goes into the dump id, so that the dumps of two machines differ.
	MachineID []byte
	// Tally, when not nil, counts what is done.
	Tally *Tally
	// Log, when not nil, takes lines for people; it must not block for long.
	Log func(format string, args ...any)
}

// ErrDeadline means that the deadline came before any receiver could be asked to seal
// the dump.
var ErrDeadline = errors.New("the deadline came and no receiver has sealed the dump")

// A SendError says that no receiver took the dump.
type SendError struct {
	Target string
	// LogStored is set when a receiver has stored the log.
	LogStored bool
	Sessions  uint64
	Err       error
}

// Error names the target that was tried last.
func (e *SendError) Error() string { return fmt.Sprintf("%s: %v", e.Target, e.Err) }

// Unwrap returns the last failure.
func (e *SendError) Unwrap() error { return e.Err }

// Hints returns what the receiver suggests.
func (e *SendError) Hints() []string {
	if pe, ok := errors.AsType[*protocol.Error](e.Err); ok && pe.Hint != "" {
		return []string{pe.Hint}
	}
	return nil
}

// job is one Send.
type job struct {
	src     *Source
	opts    Options
	ladder  []protocol.Encoding
	hello   protocol.Hello
	ram     []mem.Range
	tally   *Tally
	attempt uint64

	logStored bool
	logged    map[string]bool

	planOnce sync.Once
	planCtx  context.Context //nolint:containedctx // the job's own: a plan outlives the session that began it
	planDone chan struct{}
	plan     *Plan
	planErr  error
	pipe     *pipeline
}

// Send sends the dump to the first of the targets that takes it, and reconnects and
// resumes for as long as the options allow. The error, if any, is of type
// *SendError, or ctx's.
func Send(ctx context.Context, src *Source, opts Options) (*Result, error) {
	ladder, err := ladderOf(opts.Encoding)
	if err != nil {
		return nil, err
	}
	if len(opts.To) == 0 {
		return nil, errors.New("no target to send to")
	}
	if opts.Tally == nil {
		opts.Tally = new(Tally)
	}
	if opts.Log == nil {
		opts.Log = func(string, ...any) {}
	}
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancel(ctx)
	j := &job{
		src: src, opts: opts, ladder: ladder, tally: opts.Tally, planCtx: ctx,
		ram: mergeRAM(src.image.RAM()), logged: map[string]bool{}, planDone: make(chan struct{}),
	}
	j.hello = j.newHello()
	j.tally.begin(func(l LostPage) { j.log("warning: %v; left out", l) })
	defer j.waitPlan()
	defer cancel()
	return j.send(ctx)
}

func (j *job) log(format string, args ...any) { j.opts.Log(format, args...) }

// logOnce logs what every session would say again.
func (j *job) logOnce(line string) {
	if !j.logged[line] {
		j.logged[line] = true
		j.log("warning: %s", line)
	}
}

// send tries the targets in turn, round after round.
func (j *job) send(ctx context.Context) (*Result, error) {
	// stop is about the deadline alone, so that its end is never taken for that of ctx.
	stop, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if d := j.opts.Deadline; !d.IsZero() {
		var off, grace context.CancelFunc
		stop, off = context.WithDeadline(stop, d)
		defer off()
		ctx, grace = context.WithDeadlineCause(ctx, d.Add(sealingGrace), ErrDeadline)
		defer grace()
	}
	targets := slices.Clone(j.opts.To)
	wait := backoff{next: firstBackoff}
	for {
		res, left, err := j.round(ctx, stop, targets)
		switch {
		case res != nil:
			return res, nil
		case ctx.Err() != nil:
			return nil, j.ended(ctx, err)
		case len(left) == 0, time.Since(j.tally.lastProgress()) >= j.opts.Patience:
			return nil, err
		case stop.Err() != nil:
			err.Err = errors.Join(ErrDeadline, err.Err)
			return nil, err
		}
		targets = left
		if wait.sleep(ctx, stop, j.tally, err.Err) != nil {
			return nil, j.ended(ctx, err)
		}
	}
}

// round tries each target once. Without a result it returns those that are worth another
// try, and the last failure.
func (j *job) round(ctx, stop context.Context, targets []string) (res *Result, left []string, last *SendError) {
	for _, target := range targets {
		res, err := j.try(ctx, stop, target)
		if err == nil {
			return res, nil, nil
		}
		last = &SendError{Target: target, LogStored: j.logStored, Sessions: j.attempt, Err: err}
		switch {
		case ctx.Err() != nil:
			return nil, nil, last
		case errors.Is(err, protocol.CodeSuperseded):
			// Another sender is at work on this dump; coming back would only chase it away.
			return nil, nil, last
		case !j.opts.Stubborn && permanent(err):
			j.log("%v; not tried again", last)
		default:
			j.log("%v", last)
			left = append(left, target)
		}
	}
	return nil, left, last
}

// ended returns why the whole job ended: it was told to, or its time was up.
func (j *job) ended(ctx context.Context, last *SendError) error {
	if errors.Is(context.Cause(ctx), ErrDeadline) {
		last.Err = errors.Join(ErrDeadline, last.Err)
		return last
	}
	return ctx.Err()
}

// backoff is the wait between two rounds. It begins anew when something has become
// durable since the last one.
type backoff struct {
	next time.Duration
	seen time.Time
}

func (b *backoff) sleep(ctx, stop context.Context, t *Tally, err error) error {
	if p := t.lastProgress(); p.After(b.seen) {
		b.seen, b.next = p, firstBackoff
	}
	// Half of it at random, so that a fleet that crashed together comes back apart.
	d := b.next/2 + rand.N(b.next/2+1)
	b.next = min(2*b.next, maxBackoff)
	if e, ok := errors.AsType[*protocol.Error](err); ok && e.RetryAfter > 0 {
		d = min(e.RetryAfter, maxRetryAfter)
	}
	t.setState("waiting to reconnect")
	select {
	case <-time.After(d):
		return nil
	case <-stop.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// permanent reports whether another try at the same receiver is of no use.
func permanent(err error) bool {
	if _, ok := errors.AsType[*handshakeError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*localError](err); ok {
		return true
	}
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return !e.Code.Temporary()
	}
	// Alerts of the peer about our certificate come with the first read in TLS 1.3.
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return true
	}
	return false
}

// try runs one session with one target.
func (j *job) try(ctx, stop context.Context, target string) (*Result, error) {
	j.tally.setState("connecting")
	j.attempt++
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	nc, err := j.opts.Dial(dctx, target)
	cancel()
	if err != nil {
		return nil, err
	}
	j.log("connected to %s", target)
	out, err := j.session(ctx, stop, nc)
	if err != nil {
		return nil, err
	}
	p := j.tally.Progress()
	j.tally.setState("done")
	return &Result{
		Sealed: *out.sealed, Reason: out.reason, Declined: out.declined, DeclinedWhy: out.why, Known: out.known, Target: target,
		Lost: p.Lost, LostNotes: j.tally.lostLines(), BytesSent: p.BytesSent, Sessions: j.attempt, Elapsed: p.Elapsed,
	}, nil
}
