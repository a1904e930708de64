package sender

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// Times of a connection.
const (
	dialTimeout  = 15 * time.Second
	secondLook   = 5 * time.Second // what a dial may take while another connection is there
	sealingGrace = time.Minute     // what sealing may take after the deadline
	// maxOverrun is how long after the end of the patience a receiver may ask to be asked
	// again; one that wants to be left alone longer is not waited for.
	maxOverrun = time.Minute
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
	// Stall is how long a receiver that lives may take nothing on, before it is left: no
	// chunk acknowledged, no answer given, no WAIT. Ten times that where its work grows with
	// the dump. It has to be enough for 1 MiB to get through the line. 0 is for ever.
	Stall time.Duration
	// Stubborn tries on even after refusals that another try will hardly change: somebody
	// may mend the receiver while the patience lasts.
	Stubborn bool
	// Workers read and compress pages at the same time; 0 is one for each CPU.
	Workers int
	// Tool names this program and its version for the receiver.
	Tool string
	// MachineID goes into the dump id, so that the dumps of two machines differ.
	MachineID []byte
	// Meter, when not nil, counts what is done.
	Meter *Meter
	// Log, when not nil, takes lines for people; it must not block for long.
	Log func(format string, args ...any)
	// Alive, when not nil, is called at least every few seconds, by one goroutine, while the
	// job is not hung: the dump is read, chunks go out, a receiver that is waited for is
	// heard, or the next try is waited for.
	Alive func()
}

// job is one Send.
type job struct {
	src     *Source
	opts    Options
	ladder  []protocol.Encoding
	hello   protocol.Hello
	ram     []mem.Range
	meter   *Meter
	attempt uint64

	targets targets
	stall   stallTimer
	// logOnly is the result of the first receiver that took the log and no more.
	logOnly *Result
	// late is set when the deadline has come.
	late   bool
	logged map[string]bool

	planOnce sync.Once
	planCtx  context.Context //nolint:containedctx // the job's own: a plan outlives the session that began it
	planDone chan struct{}
	plan     *Plan
	planErr  error
	pipe     *pipeline
}

// Send sends the dump to the first of the targets that takes it, and reconnects and
// resumes for as long as the options allow. A target that was lost with pages on it is
// gone back to for a while; then the others have their turn, and it again. The error, if
// any, is of type *SendError, or ctx's.
func Send(ctx context.Context, src *Source, opts Options) (*Result, error) {
	ladder, err := ladderOf(opts.Encoding)
	if err != nil {
		return nil, err
	}
	if len(opts.To) == 0 {
		return nil, errors.New("no target to send to")
	}
	if opts.Meter == nil {
		opts.Meter = new(Meter)
	}
	if opts.Log == nil {
		opts.Log = func(string, ...any) {}
	}
	if opts.Workers <= 0 {
		opts.Workers = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancel(ctx)
	j := &job{
		src: src, opts: opts, ladder: ladder, meter: opts.Meter, planCtx: ctx,
		ram: mergeRAM(src.image.RAM()), logged: map[string]bool{}, planDone: make(chan struct{}),
		targets: newTargets(opts.To),
	}
	j.hello = j.newHello()
	j.meter.begin(func(l LostPage) { j.log("warning: %v; left out", l) })
	var watch sync.WaitGroup
	defer watch.Wait()
	defer j.waitPlan()
	defer cancel()
	if opts.Alive != nil {
		watch.Go(func() { j.watchAlive(ctx) })
	}
	res, err := j.send(ctx)
	if err == nil {
		err = j.withoutPages(res)
	}
	if err != nil {
		return nil, err
	}
	return res, nil
}

func (j *job) log(format string, args ...any) { j.opts.Log(format, args...) }

// logOnce logs what every session would say again.
func (j *job) logOnce(line string) {
	if !j.logged[line] {
		j.logged[line] = true
		j.log("warning: %s", line)
	}
}

// send tries the targets until one has taken the dump.
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
	for {
		if stop.Err() != nil && !j.late {
			j.late = true
			j.targets.lastCall()
		}
		t := j.next()
		if t == nil {
			break
		}
		if time.Now().Before(t.next) {
			j.pause(ctx, stop, t.next)
		} else if res, err := j.attemptAt(ctx, stop, t); res != nil || err != nil {
			return res, err
		}
		if ctx.Err() != nil {
			return nil, j.ended(ctx)
		}
	}
	if j.logOnly != nil {
		return j.logOnly, nil
	}
	return nil, j.failure(j.late)
}

// next returns the target to be tried now or in a while; nil when it is time to give up,
// which is not before every target was asked once.
func (j *job) next() *target {
	t := j.targets.choose(time.Now())
	if t == nil || j.late {
		return t
	}
	end := j.meter.lastProgress().Add(j.opts.Patience)
	if t.tries > 0 && (!time.Now().Before(end) || t.next.After(end.Add(maxOverrun))) {
		return j.targets.untried()
	}
	return t
}

// attemptAt tries one target. Without a result and an error another try may be made.
func (j *job) attemptAt(ctx, stop context.Context, t *target) (*Result, error) {
	res, t, err := j.try(ctx, stop, t)
	switch {
	case err == nil && j.wantsMore(res):
		t.over, t.err = true, &protocol.Error{Code: protocol.CodeDeclined, Text: "it took the log only" + because(res.DeclinedWhy), Remote: true}
		if j.logOnly == nil {
			j.logOnly = res
		}
		j.log("%s took the log only%s", t.addr, because(res.DeclinedWhy))
		return nil, nil //nolint:nilnil // the next target may want more
	case err == nil:
		return res, nil
	}
	err = corehaultls.Explain(err)
	t.fail(err, time.Now())
	switch {
	case ctx.Err() != nil:
		return nil, nil //nolint:nilnil // send says why it ended
	case errors.Is(err, protocol.CodeSuperseded):
		// Another sender is at work on this dump; coming back would only chase it away.
		return nil, j.failure(false)
	case permanent(err) && !j.opts.Stubborn, j.late && t.pages == 0, j.opts.Patience == 0:
		t.over = true
		j.log("%s: %v; not tried again", t.addr, err)
	default:
		j.log("%s: %v; next try in %.1f s", t.addr, err, time.Until(t.next).Seconds())
	}
	return nil, nil //nolint:nilnil // try on
}

// wantsMore reports whether a receiver has taken the log and no more, of its own will: others
// may take all.
func (j *job) wantsMore(res *Result) bool {
	return res.State == protocol.StateLogOnly && !j.opts.LogOnly && (res.Declined || res.Known)
}

// ended returns why the whole job ended: it was told to, or its time was up.
func (j *job) ended(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), ErrDeadline) {
		return j.failure(true)
	}
	return ctx.Err()
}

// pause waits until a time, or until the deadline comes for the first time.
func (j *job) pause(ctx, stop context.Context, until time.Time) {
	j.meter.setState("waiting to reconnect")
	deadline := stop.Done()
	if j.late {
		deadline = nil
	}
	for {
		left := time.Until(until)
		if left <= 0 {
			return
		}
		select {
		case <-time.After(min(left, signEvery)):
			j.meter.step() // patience is not a hang
		case <-deadline:
			return
		case <-ctx.Done():
			return
		}
	}
}

// connect connects to t, or to a target that was not there when last looked for and has
// more of the dump: what brought t back may have brought it back as well.
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
		return nc, t, nil //nolint:nilerr // it is still not there
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
	if !j.late {
		// When the deadline comes, the target with the most pages is what matters.
		defer context.AfterFunc(stop, cancel)()
	}
	nc, err := j.opts.Dial(ctx, t.addr)
	if err == nil {
		return nc, nil
	}
	if _, ok := errors.AsType[*handshakeError](err); ok {
		return nil, err
	}
	return nil, &dialError{err}
}

// try runs one session with one target, which it returns.
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
		Sealed: *out.sealed, Reason: out.reason, Declined: out.declined, DeclinedWhy: out.why, Known: out.known, Target: t.addr,
		Lost: p.Lost, LostNotes: j.meter.lostLines(), BytesSent: p.BytesSent, Sessions: j.attempt, Elapsed: p.Elapsed,
	}, t, nil
}
