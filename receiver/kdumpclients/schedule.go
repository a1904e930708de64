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
	// retryAfter is the pause after failed work on a directory.
	retryAfter = time.Minute
	// tempFor is how long a directory of MkdirTemp is kept. statusFor is the same for the status file of kdump's test mode.
	tempFor   = time.Hour
	statusFor = 24 * time.Hour
	// maxJobs and maxImports bound the jobs and imports that run at a time. A host has one import at a time.
	maxJobs    = 16
	maxImports = 1
	// importTurn is how long an import may block others. After that, it runs beside the next one. A few bytes can name
	// billions of pages, so an import can take long.
	importTurn = 10 * time.Minute
)

// job is the work on one directory.
type job struct {
	svc  *Service
	h    *host
	path string
	dir  *dirState
}

// jobs has the running jobs.
type jobs struct {
	mu      sync.Mutex
	running map[*dirState]bool
	retry   map[*dirState]time.Time
	imports chan struct{}   // has an element for each import that blocks others
	of      map[string]bool // hosts with a running import
	turn    time.Duration   // importTurn, except in tests
	kick    chan struct{}   // has a signal when something has changed
}

func newJobs() *jobs {
	return &jobs{
		running: map[*dirState]bool{}, retry: map[*dirState]time.Time{},
		imports: make(chan struct{}, maxImports), of: map[string]bool{}, turn: importTurn, kick: make(chan struct{}, 1),
	}
}

// beginImport reports whether a dump of the host may be imported now. The caller has to call end afterwards.
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

// wake makes Run look for work.
func (s *Service) wake() {
	select {
	case s.jobs.kick <- struct{}{}:
	default:
	}
}

// Run makes dumps of arriving files until ctx is done. The next Run continues unfinished work.
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

// due claims the directories with work.
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
	maps.DeleteFunc(js.retry, func(_ *dirState, at time.Time) bool { return time.Now().After(at) }) // the directories may not exist any more
	if failed {
		js.retry[d] = time.Now().Add(retryAfter)
	}
}

// run does the work of a job and logs the result.
func (s *Service) run(ctx context.Context, j *job) {
	err := j.workSafely(ctx)
	later := errors.Is(err, errLater)
	failed := err != nil && !later && !errors.Is(err, errAgain) && ctx.Err() == nil
	s.jobs.release(j.dir, failed)
	if later {
		return // the end of the running import wakes
	}
	if !failed {
		s.wake() // others may have waited for this import
		return
	}
	s.cfg.Log.Error("cannot make a dump of what a host sent; will try again", "host", j.h.name, "directory", j.path, "after", retryAfter, "error", err)
}

// errLater ends a step that has to wait for another import.
var errLater = errors.New("another dump is being copied")

// errAgain ends a step after which there may be more work.
var errAgain = errors.New("more to do")
