package receiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// retrySeal is the time before a failed seal is tried again.
const retrySeal = time.Minute

// expiry has the unsealed dumps that nobody writes, and how long each waits for its sender.
type expiry struct {
	mu   sync.Mutex
	due  map[storage.Ref]absence
	wake chan struct{} // has a signal when due has changed
}

// absence is the wait of a dump for its sender.
type absence struct {
	since, until time.Time
	had          dumpdir.Progress // what was stored when it began
}

func newExpiry() *expiry {
	return &expiry{due: map[storage.Ref]absence{}, wake: make(chan struct{}, 1)}
}

// absent is the absence of a sender that begins now, and whose dump has so much.
func absent(grace time.Duration, had dumpdir.Progress) absence {
	now := time.Now()
	return absence{since: now, until: now.Add(grace), had: had}
}

// set makes ref wait.
func (e *expiry) set(ref storage.Ref, a absence) {
	e.mu.Lock()
	e.due[ref] = a
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// cancel ends the wait of a dump that a session writes again, or that is sealed.
func (e *expiry) cancel(ref storage.Ref) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.due, ref)
}

// next removes and returns the dumps that are due, and the time until the next one. ok is false if there is none.
func (e *expiry) next(now time.Time) (due []storage.Ref, wait time.Duration, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for ref, w := range e.due {
		left := w.until.Sub(now)
		if left <= 0 {
			due = append(due, ref)
			delete(e.due, ref)
			continue
		}
		if !ok || left < wait {
			wait, ok = left, true
		}
	}
	return due, wait, ok
}

// gone returns the dumps that wait for their senders, the one that is due first first.
func (e *expiry) gone() []GoneStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]GoneStatus, 0, len(e.due))
	for ref, w := range e.due {
		list = append(list, GoneStatus{Host: ref.Host, ID: ref.ID, Since: w.since, Until: w.until, Pages: w.had.Present, Planned: w.had.Planned})
	}
	slices.SortFunc(list, func(a, b GoneStatus) int {
		return cmp.Or(a.Until.Compare(b.Until), cmp.Compare(a.Host, b.Host), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// scheduleUnsealed finds the dumps that an earlier process left arriving, or with a challenger. They wait for their senders
// as long as any other dump.
func (s *Server) scheduleUnsealed(ctx context.Context) error {
	list, err := s.unsealed(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, found := range list {
		if !found.ours || s.claims[ref] != nil {
			continue // another part of the process has it, or its sender is already back
		}
		grace := s.cfg.ResumeGrace
		if found.finished {
			grace = 0
			s.cfg.Log.Info("found a complete dump that is not sealed", "host", ref.Host, "dump", ref.ID)
		} else {
			s.cfg.Log.Info("found an unfinished dump; its sender may come back", "host", ref.Host, "dump", ref.ID, "grace", grace)
		}
		s.expiry.set(ref, absent(grace, found.had))
	}
	return nil
}

// unsealed is a dump that is arriving or has a challenger.
type unsealed struct {
	ours     bool             // this Server has to seal it
	had      dumpdir.Progress // pages that it has; zero for a challenger
	finished bool             // it is complete, and no sender is expected
}

// unsealed returns the dumps that are arriving or have a challenger.
func (s *Server) unsealed(ctx context.Context) (map[storage.Ref]unsealed, error) {
	list := map[storage.Ref]unsealed{}
	arriving, err := s.cfg.Store.List(ctx, storage.Filter{State: []dumpdir.State{dumpdir.StateArriving}})
	if err != nil {
		return nil, fmt.Errorf("receiver: list arriving dumps: %w", err)
	}
	for _, e := range arriving {
		list[e.Ref] = unsealed{
			ours:     s.cfg.Foreign == nil || !s.cfg.Foreign(e.Ref),
			had:      dumpdir.Progress{Planned: e.Manifest.Pages.Planned, Present: e.Manifest.Pages.Present},
			finished: s.finished(ctx, &e),
		}
	}
	contested, err := s.cfg.Store.Challengers().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("receiver: list challengers: %w", err)
	}
	for _, ref := range contested {
		list[ref] = unsealed{ours: true}
	}
	return list, nil
}

// finished reports whether a dump was complete when an earlier process ended. An error shows when the dump is sealed.
func (s *Server) finished(ctx context.Context, e *storage.Entry) bool {
	if p := &e.Manifest.Pages; p.Present < p.Planned || p.Planned == 0 {
		return false
	}
	d, err := s.cfg.Store.Open(ctx, e.Ref)
	if err != nil {
		return false
	}
	done, err := d.Finished()
	return errors.Join(err, d.Close()) == nil && done
}

// expire seals dumps that are due until ctx is done.
func (s *Server) expire(ctx context.Context) {
	for {
		due, wait, ok := s.expiry.next(time.Now())
		for _, ref := range due {
			if ctx.Err() != nil {
				return // seals take fsyncs and thousands may be due; the next start finds the rest
			}
			s.sealExpired(ctx, ref)
		}
		if len(due) > 0 {
			continue
		}
		if !sleep(ctx, wait, ok, s.expiry.wake) {
			return
		}
	}
}

// sleep waits for d, if timed, for a signal, or for the end of ctx. At the end of ctx, it returns false.
func sleep(ctx context.Context, d time.Duration, timed bool, wake <-chan struct{}) bool {
	var timeout <-chan time.Time
	if timed {
		t := time.NewTimer(d)
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-timeout:
	case <-wake:
	case <-ctx.Done():
		return false
	}
	return true
}

// sealExpired seals a dump whose sender did not come back. A sender that comes back meanwhile interrupts the seal, or
// reopens the sealed dump.
func (s *Server) sealExpired(parent context.Context, ref storage.Ref) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	if s.claimed(ref) {
		return
	}
	mine, before, err := s.claim(ref, cancel)
	if err != nil {
		return // another host's session has the id; the next start finds this dump
	}
	err = before.wait(ctx)
	if err == nil {
		err = s.sealNow(ctx, ref)
	}
	stillMine := s.release(ref, mine, func() {})
	log := s.cfg.Log.With("host", ref.Host, "dump", ref.ID)
	var damage *dumpdir.DamageError
	switch {
	case err == nil || !stillMine || parent.Err() != nil || errors.Is(err, storage.ErrNotFound):
	case errors.As(err, &damage):
		log.Error("cannot seal a damaged dump; it is left unchanged", "error", err)
	default:
		log.Error("cannot seal a dump whose sender broke off; will try again", "after", retrySeal, "error", err)
		s.expiry.set(ref, absent(retrySeal, dumpdir.Progress{}))
	}
}

func (s *Server) sealNow(ctx context.Context, ref storage.Ref) error {
	end, err := s.sealBest(ctx, ref, dumpdir.ReasonGone)
	if err != nil || end.wasSealed {
		return err // sealed before: its sender only came back for SEALED
	}
	s.sealed(end.State)
	log, text := s.cfg.Log.Warn, "sealed a dump whose sender did not come back"
	if end.State == dumpdir.StateComplete {
		log, text = s.cfg.Log.Info, "sealed a complete dump"
	}
	log(text, "host", ref.Host, "dump", ref.ID, "state", end.State, "pages", end.Progress.Present, "missing", end.Progress.Missing())
	return nil
}
