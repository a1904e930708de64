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
	// Deadline ends the dump early. The receiver is then asked to seal what it has. Zero means no deadline.
	Deadline time.Time
	// Patience is how long Send tries to connect without anything becoming durable. 0 means one round over the targets.
	Patience time.Duration
	// Stall is how long a receiver may send no ACK, no answer and no WAIT before the sender leaves it. For answers whose
	// work grows with the dump, it is ten times as long. It must be enough to send 1 MiB. 0 means no limit.
	Stall time.Duration
	// Stubborn tries again even after permanent refusals: somebody may repair the receiver while the patience lasts.
	Stubborn bool
	// Final reports that nobody can repair a target while the dump is sent, such as a disk in a capture kernel. Stubborn does
	// not hold for it, and neither does the hope that a full disk gets room. It may be nil.
	Final func(target string) bool
	// Workers is how many goroutines read and compress pages. 0 means one for each CPU.
	Workers int
	// Tool names this program and its version for the receiver.
	Tool string
	// MachineID goes into the dump id, so that the dumps of two machines differ.
	MachineID []byte
	// Meter counts the progress. It may be nil.
	Meter *Meter
	// Log takes lines for people. It may be nil, and must not block for long.
	Log func(format string, args ...any)
	// Alive is called by one goroutine, at least every few seconds, while the sender is not hung: it reads the dump, sends
	// chunks, hears the receiver that it waits for, or waits for its next try. It may be nil.
	Alive func()
	// Again receives a value when targets that could not be reached may be reached now, as when a network came up. It may be nil.
	Again <-chan struct{}
}

// job is the state of one Send.
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
	// logOnly is the result of the first receiver that took the log only.
	logOnly *Result
	// late is set when the deadline has come, gaveUp when no target can take all of the dump.
	late   bool
	gaveUp bool
	logged map[string]bool

	planOnce sync.Once
	planCtx  context.Context //nolint:containedctx // the job's own: a plan outlives the session that began it
	planDone chan struct{}
	plan     *Plan
	planErr  error
	pipe     *pipeline
}

// Send sends the dump to the first target that takes it. It reconnects and resumes for as long as the options allow. A
// lost target that has pages is tried alone for a while, then in turn with the others. The error is a *SendError, an
// *InterruptedError if ctx ends, or one about the options or the plan.
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

// logOnce logs a warning that every session would repeat.
func (j *job) logOnce(line string) {
	if !j.logged[line] {
		j.logged[line] = true
		j.log("warning: %s", line)
	}
}

// send tries the targets until one has taken the dump.
func (j *job) send(ctx context.Context) (*Result, error) {
	// stop ends with the deadline only, so that its end is never mistaken for that of ctx.
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
		if j.pause(ctx, stop, t.next) && ctx.Err() == nil {
			if res, err := j.attemptAt(ctx, stop, t); res != nil || err != nil {
				return res, err
			}
		}
		if ctx.Err() != nil {
			return nil, j.ended(ctx)
		}
	}
	if res := j.sealLocal(ctx, stop); res != nil {
		return res, nil
	}
	if j.logOnly != nil {
		return j.logOnly, nil
	}
	return nil, j.failure(j.late)
}
