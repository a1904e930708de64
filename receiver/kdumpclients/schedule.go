package kdumpclients

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// retryAfter is when work on a directory is tried again that failed.
	retryAfter = time.Minute
	// tempFor is how long a directory of MkdirTemp stays, statusFor how long the status file of kdump's test mode does.
	tempFor   = time.Hour
	statusFor = 24 * time.Hour
	// maxJobs bounds the directories that are worked on at a time; maxImports those whose dumps are copied, one of each host.
	maxJobs    = 16
	maxImports = 1
	// importTurn is how long an import may keep others waiting. It goes on then, beside the next: a few bytes
	// can speak of billions of pages, each of which is looked for.
	importTurn = 10 * time.Minute
)

// job is a directory that is worked on.
type job struct {
	svc  *Service
	h    *host
	path string
	dir  *dirState
}

// jobs keeps who works on what.
type jobs struct {
	mu      sync.Mutex
	running map[*dirState]bool
	retry   map[*dirState]time.Time
	imports chan struct{}   // holds one for each import that keeps others waiting
	of      map[string]bool // hosts that have an import under way
	turn    time.Duration   // importTurn
	kick    chan struct{}   // holds one signal when something changed
}

func newJobs() *jobs {
	return &jobs{
		running: map[*dirState]bool{}, retry: map[*dirState]time.Time{},
		imports: make(chan struct{}, maxImports), of: map[string]bool{}, turn: importTurn, kick: make(chan struct{}, 1),
	}
}

// beginImport reports whether a dump of the host may be copied now; end has to be called when it was.
func (js *jobs) beginImport(host string, wake func()) (end func(), ok bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.of[host] {
		return nil, false
	}
	select {
	case js.imports <- struct{}{}:
	default:
		return nil, false
	}
	js.of[host] = true
	next := sync.OnceFunc(func() { <-js.imports; wake() })
	timer := time.AfterFunc(js.turn, next)
	return func() {
		timer.Stop()
		js.mu.Lock()
		delete(js.of, host)
		js.mu.Unlock()
		next()
		wake()
	}, true
}

// wake has directories looked at.
func (s *Service) wake() {
	select {
	case s.jobs.kick <- struct{}{}:
	default:
	}
}

// Run makes dumps of what arrives, until ctx is done. What is under way then is taken up by the next Run.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(min(max(s.cfg.Grace/4, 50*time.Millisecond), 15*time.Second))
	defer tick.Stop()
	for {
		for _, j := range s.due() {
			wg.Go(func() { s.run(ctx, j) })
		}
		select {
		case <-s.jobs.kick:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// due claims the directories that have work.
func (s *Service) due() (due []*job) {
	s.mu.Lock()
	hosts := slices.Collect(maps.Values(s.hosts))
	s.mu.Unlock()
	for _, h := range hosts {
		h.expire()
		h.mu.Lock()
		for p, d := range h.state.all() {
			if j := (&job{svc: s, h: h, path: p, dir: d}); j.hasWork() && s.jobs.claim(d) {
				due = append(due, j)
			}
		}
		h.mu.Unlock()
	}
	return due
}

func (js *jobs) claim(d *dirState) bool {
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.running[d] || len(js.running) >= maxJobs || time.Now().Before(js.retry[d]) {
		return false
	}
	js.running[d] = true
	return true
}

func (js *jobs) release(d *dirState, failed bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	delete(js.running, d)
	delete(js.retry, d)
	maps.DeleteFunc(js.retry, func(_ *dirState, at time.Time) bool { return time.Now().After(at) }) // their directories may be gone
	if failed {
		js.retry[d] = time.Now().Add(retryAfter)
	}
}

// run works on a directory and says what came of it.
func (s *Service) run(ctx context.Context, j *job) {
	err := j.workSafely(ctx)
	later := errors.Is(err, errLater)
	failed := err != nil && !later && !errors.Is(err, errAgain) && ctx.Err() == nil
	s.jobs.release(j.dir, failed)
	if later {
		return // the end of the import that is under way wakes
	}
	if !failed {
		s.wake() // others may have waited for the place
		return
	}
	s.cfg.Log.Error("cannot make a dump of what a host sent; will try again", "host", j.h.name, "directory", j.path, "after", retryAfter, "error", err)
}

// errLater ends a piece of work that waits for another dump to be copied.
var errLater = errors.New("another dump is being copied")

// errAgain ends a piece of work after which there may be more.
var errAgain = errors.New("more to do")
