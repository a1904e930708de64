// Package reports makes the report of each dump of a store: what crashed and where.
//
// A Runner makes a report of the log as soon as that is stored, and one of the whole dump after its seal. It stores them in the
// dump's report.json (see docs/layout.md). It has no other state: after a kill it makes what is missing. Hints of the store
// tell it of new dumps. It lists the store at its start and every ten minutes, because hints may be lost.
//
// Logs come first and have a lane of their own, since they take an instant. Then dumps that have just been sealed, then those that
// lack a report for longer, as after an upgrade, then reports that an older version of the program made, at a bounded rate. Within
// each, time is shared between hosts, and the newest dump of a host comes first.
//
// A dump that cannot be read gets a report that says so, and is not tried again by the same version. What fails for another
// reason, such as a full disk, is tried again later. A sender that comes back to a dump is not held up: a report that is made meanwhile
// is dropped.
package reports

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/triage"
)

// DefaultRenewals is the default of Runner.Renewals.
const DefaultRenewals = 360

const (
	// every is the pause between two lists of the store.
	every = 10 * time.Minute
	// retry is the pause before a report that could not be made is tried again. It doubles each time, up to maxRetry.
	retry    = 10 * time.Minute
	maxRetry = 12 * time.Hour
	// maxPause is the longest pause after several failures in a row. The first one takes a second, and each further one twice as long.
	maxPause = time.Minute
	// spell is how many new dumps are read at most while older ones wait, before one of those is.
	spell = 8
)

// Maker makes reports. *cage.Cage is one. It is used concurrently. A *cage.FailedError says that the dump is at fault.
type Maker interface {
	// Dump reads the dump in dir, in any state.
	Dump(ctx context.Context, dir string) (*triage.Report, error)
	// Log reads vmcore-dmesg.txt in dir alone.
	Log(ctx context.Context, dir string) (*triage.Report, error)
}

// Runner makes the reports of a store.
type Runner struct {
	Store   storage.Store
	Maker   Maker
	Log     *slog.Logger
	Program string // name and version of this program
	Jobs    int    // dumps that are read at the same time, above 0, beside one log
	// Renewals is how many reports of older versions of the program are replaced in an hour; 0 is none.
	Renewals int
	// Charge counts n bytes for a host before they are written. An error keeps the report from being stored. Nil counts nothing.
	Charge func(ctx context.Context, host string, n uint64) error

	status atomic.Pointer[Status]
}

// lane is one of the queues.
type lane int

const (
	logs   lane = iota
	fresh       // sealed since the start
	behind      // found in a list
	renewals
	lanes // number of lanes
)

// makes reports whether the lane makes a report of this kind. A log takes no time, so every lane makes it.
func (l lane) makes(n need) bool {
	return n == ofLog || n == ofDump && l != logs || n == renewal && l == renewals
}

// laneOf returns the lane for what a dump of a list needs.
func laneOf(n need) lane { return map[need]lane{ofLog: logs, ofDump: behind, renewal: renewals}[n] }

// failure is a dump whose report could not be made.
type failure struct {
	pause time.Duration
	until time.Time
}

// run is the state of Runner.Run, of its goroutine alone.
type run struct {
	*Runner

	queues  [lanes]*queue
	active  [lanes]int
	busy    map[storage.Ref]bool // dumps that are under way
	again   map[storage.Ref]lane // what came for busy dumps meanwhile
	failed  map[storage.Ref]failure
	told    map[string]time.Time // when an error of a host was logged
	invalid map[storage.Ref]bool // dumps whose report was found to be invalid
	unread  map[storage.Ref]bool // dumps that could not be read
	streak  int                  // fresh dumps since the last one of behind

	failures int       // in a row
	paused   time.Time // until when nothing begins
	renew    time.Time // when the next renewal may begin

	done   chan result
	listed chan []storage.Entry
	wg     sync.WaitGroup
}

// Run makes reports until ctx is done. Then it ends what is under way, and returns.
func (r *Runner) Run(ctx context.Context) {
	s := &run{
		Runner: r, busy: map[storage.Ref]bool{}, again: map[storage.Ref]lane{}, failed: map[storage.Ref]failure{}, told: map[string]time.Time{},
		invalid: map[storage.Ref]bool{}, unread: map[storage.Ref]bool{}, done: make(chan result), listed: make(chan []storage.Entry),
	}
	for i := range s.queues {
		s.queues[i] = newQueue()
	}
	defer s.wg.Wait()
	logStored, cancel := r.Store.Subscribe(storage.LogStored)
	defer cancel()
	sealed, cancel := r.Store.Subscribe(storage.Sealed)
	defer cancel()
	s.list(ctx)
	lists := time.NewTicker(every)
	defer lists.Stop()
	for ctx.Err() == nil {
		wake := time.NewTimer(s.begin(ctx))
		s.tell()
		select {
		case ref := <-logStored:
			s.put(ref, logs, time.Now())
		case ref := <-sealed:
			s.put(ref, fresh, time.Now())
		case res := <-s.done:
			s.end(ctx, res)
		case entries := <-s.listed:
			s.see(entries, time.Now())
		case <-lists.C:
			s.list(ctx)
		case <-wake.C:
		case <-ctx.Done():
		}
		wake.Stop()
	}
}

// list lists the store in the background.
func (s *run) list(ctx context.Context) {
	s.wg.Go(func() {
		entries, err := s.Store.List(ctx, storage.Filter{})
		if err != nil && ctx.Err() == nil {
			s.Log.Error("reports: cannot list the dumps; trying again", "after", every, "error", err)
		}
		select {
		case s.listed <- entries:
		case <-ctx.Done():
		}
	})
}

// see puts the dumps of a list that need a report into their lanes.
func (s *run) see(entries []storage.Entry, now time.Time) {
	invalid, there, unread := map[storage.Ref]bool{}, map[storage.Ref]bool{}, map[storage.Ref]bool{}
	for i := range entries {
		e := &entries[i]
		there[e.Ref] = true
		if e.ReportError != nil {
			if invalid[e.Ref] = true; !s.invalid[e.Ref] {
				s.Log.Warn("a report is invalid; making it again", "host", e.Host, "dump", e.ID, "path", e.Path, "error", e.ReportError)
			}
		}
		if h := e.Report; h != nil && h.Failed != "" && h.Describes(&e.Manifest) {
			unread[e.Ref] = true
		}
		if n := s.needs(e); n != nothing && !s.busy[e.Ref] && !now.Before(s.failed[e.Ref].until) {
			s.put(e.Ref, laneOf(n), e.Manifest.StartTime)
		}
	}
	s.invalid, s.unread = invalid, unread
	maps.DeleteFunc(s.failed, func(ref storage.Ref, _ failure) bool { return !there[ref] })
	maps.DeleteFunc(s.told, func(_ string, at time.Time) bool { return now.Sub(at) >= retry })
}

// put puts a dump into a lane, and takes it out of the others.
func (s *run) put(ref storage.Ref, l lane, arrived time.Time) {
	if l == renewals && s.Renewals <= 0 {
		return
	}
	if s.busy[ref] {
		s.again[ref] = l
		return
	}
	if _, is := s.queues[fresh].arrived[ref]; is && l == behind {
		return
	}
	for _, q := range s.queues {
		delete(q.arrived, ref)
	}
	s.queues[l].put(ref, arrived)
}

// begin begins what may begin now. It returns how long to wait before more may.
func (s *run) begin(ctx context.Context) time.Duration {
	now := time.Now()
	if wait := s.paused.Sub(now); wait > 0 {
		return wait
	}
	for s.active[logs] == 0 && s.take(ctx, logs) {
	}
	for s.reading() < s.Jobs && s.takeDump(ctx) {
	}
	if len(s.queues[renewals].arrived) == 0 || s.reading() >= s.Jobs {
		return every
	}
	if wait := s.renew.Sub(now); wait > 0 {
		return wait
	}
	s.renew = now.Add(time.Hour / time.Duration(s.Renewals))
	s.take(ctx, renewals)
	return every
}

// reading is how many dumps are under way, without logs.
func (s *run) reading() int { return s.active[fresh] + s.active[behind] + s.active[renewals] }

// takeDump begins the next dump without a report, and reports whether there was one. New dumps come first. A host that sends
// dumps without end does not keep the others waiting for ever.
func (s *run) takeDump(ctx context.Context) bool {
	if s.streak < spell && s.take(ctx, fresh) {
		s.streak++
		return true
	}
	s.streak = 0
	return s.take(ctx, behind) || s.take(ctx, fresh)
}

// take begins the next dump of a lane, and reports whether there was one.
func (s *run) take(ctx context.Context, l lane) bool {
	ref, ok := s.queues[l].take()
	if !ok {
		return false
	}
	s.active[l]++
	s.busy[ref] = true
	s.wg.Go(func() {
		res := s.make(ctx, ref, l)
		select {
		case s.done <- res:
		case <-ctx.Done():
		}
	})
	return true
}

// end takes the result of a dump.
func (s *run) end(ctx context.Context, res result) {
	s.active[res.lane]--
	s.queues[res.lane].done(res.ref.Host, res.took)
	delete(s.busy, res.ref)
	if delete(s.unread, res.ref); res.failed != "" {
		s.unread[res.ref] = true
	}
	if res.err != nil && ctx.Err() == nil {
		s.fail(res, time.Now())
	} else {
		delete(s.failed, res.ref)
		s.failures = 0
	}
	switch res.need {
	case nothing:
	case ofDump: // sealed while it waited in another lane
		s.put(res.ref, fresh, time.Now())
	default:
		s.put(res.ref, laneOf(res.need), time.Now())
	}
	if l, ok := s.again[res.ref]; ok {
		delete(s.again, res.ref)
		s.put(res.ref, l, time.Now())
	}
}

// fail notes that a report could not be made. One line of each host is logged in a while. All wait if the cause may be the machine:
// a program that cannot be started, a disk that is full.
func (s *run) fail(res result, now time.Time) {
	f := s.failed[res.ref]
	f.pause = min(max(2*f.pause, retry), maxRetry)
	f.until = now.Add(f.pause)
	s.failed[res.ref] = f
	if at, ok := s.told[res.ref.Host]; !ok || now.Sub(at) >= retry {
		s.told[res.ref.Host] = now
		s.Log.Error("a report was not made, or not stored; trying again", "host", res.ref.Host, "dump", res.ref.ID, "after", f.pause, "error", res.err)
	}
	if _, ok := errors.AsType[noRoom](res.err); !ok {
		s.paused = now.Add(min(time.Second<<min(s.failures, 10), maxPause))
		s.failures++
	}
}
