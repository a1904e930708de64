// Package scrub verifies stored dumps again and again, so that bit rot shows before somebody needs
// the dump.
//
// A Scrubber reads sealed dumps one at a time and at a bounded rate, the one that was verified longest ago
// first, from the disk and not from the system's cache, which it leaves as it was. What it finds it records in the
// dump's verify.json (see docs/layout.md) and logs. It keeps nothing else: killed at any instant, it begins
// the dump at hand anew. A sender that comes back to a dump is not held up; what was found of it meanwhile is forgotten.
//
// A Scrubber is for one goroutine.
package scrub

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// Defaults of a Scrubber.
const (
	DefaultRate  = 32 << 20
	DefaultEvery = 30 * 24 * time.Hour
)

const (
	// idle is how often new dumps are looked for when none is due.
	idle = 10 * time.Minute
	// retry is how long a dump is left alone that could not be verified.
	retry = time.Hour
	// quiet is how long after a seal a new dump is verified, if no other one is sealed meanwhile: senders come back, and
	// people look at it and remove it.
	quiet = time.Minute
	// maxBurst is the most that is read at once.
	maxBurst = 1 << 20
)

// Scrubber verifies the dumps of a store.
type Scrubber struct {
	Store storage.Store
	Log   *slog.Logger
	Rate  uint64        // bytes a second; above 0
	Every time.Duration // how long a verification is good for

	limiter *rate.Limiter
	later   map[storage.Ref]time.Time // could not be verified; not before then
}

// Run verifies until ctx is done.
func (s *Scrubber) Run(ctx context.Context) {
	burst := int(min(max(s.Rate/4, 4096), maxBurst))
	s.limiter, s.later = rate.NewLimiter(rate.Limit(s.Rate), burst), map[storage.Ref]time.Time{}
	sealed, cancel := s.Store.Subscribe(storage.Sealed)
	defer cancel()
	for ctx.Err() == nil {
		due, wait, err := s.next(ctx, time.Now())
		s.all(ctx, due)
		if err == nil && len(due) > 0 {
			continue
		}
		if err != nil && ctx.Err() == nil {
			s.Log.Error("scrub: cannot list the dumps; trying again", "after", idle, "error", err)
			wait = idle
		}
		pause(ctx, wait, sealed)
	}
}

// pause waits, and no longer than quiet after the last seal that it hears of.
func pause(ctx context.Context, wait time.Duration, sealed <-chan storage.Ref) {
	end := time.Now().Add(wait)
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case <-sealed:
			t.Reset(min(time.Until(end), quiet))
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// all verifies the dumps that are due, until it is time to look for new ones.
func (s *Scrubber) all(ctx context.Context, due []*storage.Entry) {
	begin := time.Now()
	for _, e := range due {
		if ctx.Err() != nil || time.Since(begin) > idle {
			return
		}
		s.scrub(ctx, e)
	}
}

// limit waits until n bytes may be read.
func (s *Scrubber) limit(ctx context.Context, n int) error {
	for n > 0 {
		k := min(n, s.limiter.Burst())
		if err := s.limiter.WaitN(ctx, k); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// next returns the dumps that are due, or how long to wait.
func (s *Scrubber) next(ctx context.Context, now time.Time) ([]*storage.Entry, time.Duration, error) {
	entries, err := s.Store.List(ctx, storage.Filter{})
	if err != nil {
		return nil, 0, err
	}
	for ref, t := range s.later {
		if !t.After(now) {
			delete(s.later, ref)
		}
	}
	due, wait := Due(entries, s.Every, now, func(r storage.Ref) bool { _, ok := s.later[r]; return ok })
	return due, wait, nil
}

// Due returns the sealed dumps that are to be verified: those without a verification, or with one older than every, in the
// order of their last verification, or else of their seal. It also returns how long it is until there may be more. A
// verification of the future is none: the clock was wrong.
func Due(entries []storage.Entry, every time.Duration, now time.Time, skip func(storage.Ref) bool) (due []*storage.Entry, wait time.Duration) {
	wait = idle
	for i := range entries {
		e := &entries[i]
		if e.Manifest.State == dumpdir.StateArriving || skip(e.Ref) {
			continue
		}
		if v := e.Verification; v != nil && !v.Time.After(now) {
			if left := every - now.Sub(v.Time); left > 0 {
				wait = min(wait, left)
				continue
			}
		}
		due = append(due, e)
	}
	slices.SortStableFunc(due, func(a, b *storage.Entry) int { return lastRead(a, now).Compare(lastRead(b, now)) })
	return due, wait
}

// lastRead is when a dump was verified last, or else sealed.
func lastRead(e *storage.Entry, now time.Time) time.Time {
	switch {
	case e.Verification != nil && !e.Verification.Time.After(now):
		return e.Verification.Time
	case e.Manifest.EndTime != nil:
		return *e.Manifest.EndTime
	}
	return e.Manifest.StartTime
}

// scrub verifies one dump.
func (s *Scrubber) scrub(ctx context.Context, e *storage.Entry) {
	log := s.Log.With("host", e.Host, "dump", e.ID)
	// The journal is read when the dump is opened, before anybody can wait: about 8 bytes a page.
	if s.limit(ctx, int(min(8*e.Manifest.Pages.Present, 1<<30))) != nil {
		return
	}
	begin := time.Now()
	rep, err := Check(ctx, s.Store, e, dumpdir.VerifyOptions{Limit: s.limit})
	if ctx.Err() != nil {
		return
	}
	if rep != nil {
		tell(log, e, rep, time.Since(begin))
	}
	if err != nil {
		s.later[e.Ref] = time.Now().Add(retry)
		if !Moved(err) {
			log.Error("scrub: a dump was not verified, or the result not recorded; trying again", "after", retry, "error", err)
		}
	}
}

// tell logs what was found.
func tell(log *slog.Logger, e *storage.Entry, rep *dumpdir.Report, took time.Duration) {
	if rep.OK() {
		if e.State() == dumpdir.StateDamaged {
			log.Warn("scrub: a dump that was damaged is good again")
		}
		log.Debug("scrub: verified a dump", "bytes", rep.Progress.Bytes, "took", took)
		return
	}
	for _, f := range rep.Findings[:min(len(rep.Findings), dumpdir.MaxRecordedFindings)] {
		args := []any{"file", f.File, "offset", f.Offset, "where", f.Where, "what", f.Text}
		if f.PFN != nil {
			args = append(args, "pfn", uint64(*f.PFN))
		}
		if f.Chunk != nil {
			args = append(args, "chunk", *f.Chunk)
		}
		log.Error("scrub: a stored dump is damaged", args...)
	}
	log.Error("scrub: damage found", "path", e.Path, "places", rep.Damaged)
}

// Check verifies a sealed dump of a store and records the result. Without a limit it reads as fast as it can, from the
// disk. A report is valid also when err is not nil: then it could not be recorded. There is no report of a dump that was not
// verified, and for one that Moved.
func Check(ctx context.Context, store storage.Store, e *storage.Entry, opts dumpdir.VerifyOptions) (*dumpdir.Report, error) {
	if opts.Limit == nil {
		opts.Limit = func(ctx context.Context, _ int) error { return ctx.Err() }
	}
	m, rep, err := verify(ctx, store, e, opts)
	if err != nil {
		return nil, err
	}
	err = store.SaveSide(ctx, storage.Ref{Host: m.Host, ID: m.ID}, dumpdir.NewVerification(m, rep, time.Now()), m)
	if Moved(err) {
		return nil, err
	}
	return rep, err
}

// verify returns the report, and the manifest of the dump as it was opened.
func verify(ctx context.Context, store storage.Store, e *storage.Entry, opts dumpdir.VerifyOptions) (*dumpdir.Manifest, *dumpdir.Report, error) {
	d, err := store.Open(ctx, e.Ref)
	if rep := dumpdir.DamageReport(err); rep != nil {
		return &e.Manifest, rep, nil
	}
	if err != nil {
		return nil, nil, err
	}
	m := d.Manifest()
	if m.State == dumpdir.StateArriving {
		return nil, nil, errors.Join(storage.ErrArriving, d.Close())
	}
	rep, err := d.Verify(ctx, opts)
	return m, rep, errors.Join(err, d.Close())
}

// Moved reports whether err of Check says that there is no such sealed dump any more: it is gone, its sender came back, or
// it was sealed anew.
func Moved(err error) bool {
	return errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrChanged) || errors.Is(err, storage.ErrArriving)
}
