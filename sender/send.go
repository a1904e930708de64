package sender

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
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
