// Package scrub verifies stored dumps again and again, so that bit rot is found before
// somebody needs the dump.
//
// A Scrubber reads sealed dumps one at a time and at a bounded rate, the one that was
// verified longest ago first. It reads from the disk, and leaves the page cache as it was.
// It logs the result and records it in the dump's verify.json (see docs/layout.md). It has
// no other state: after a kill, it verifies the interrupted dump again. It never blocks a
// sender that comes back to a dump. The result of that verification is then dropped.
//
// A Scrubber is not safe for concurrent use.
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
	// idle is the pause between two lists of the store when no dump is due.
	idle = 10 * time.Minute
	// retry is the pause before a dump that could not be verified is tried again.
	retry = time.Hour
	// quiet is the pause after the last seal before a new dump is verified, because senders may come back, and people may
	// look at the dump and remove it.
	quiet = time.Minute
	// maxBurst is how many bytes are read at once at most.
	maxBurst = 1 << 20
)

// Scrubber verifies the dumps of a store.
type Scrubber struct {
	Store storage.Store
	Log   *slog.Logger
	Rate  uint64        // bytes a second, above 0
	Every time.Duration // how long a verification is valid

	limiter *rate.Limiter
	later   map[storage.Ref]time.Time // when to retry dumps that could not be verified
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

// pause waits, but no longer than quiet after the last seal.
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

// all verifies the dumps that are due, until it is time to list the store again.
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

// Due returns the sealed dumps to verify: those without a verification, or with one older than every. They are sorted by
// their last verification or, if there is none, their seal. wait is the time until more dumps may be due. A verification
// in the future does not count, because the clock was wrong.
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

// lastRead returns when a dump was last verified, or otherwise sealed.
func lastRead(e *storage.Entry, now time.Time) time.Time {
	switch {
	case e.Verification != nil && !e.Verification.Time.After(now):
		return e.Verification.Time
	case e.Manifest.EndTime != nil:
		return *e.Manifest.EndTime
	}
	return e.Manifest.StartTime
}

// openCost is how many bytes are read when a dump is opened: its journal, about 8 bytes a page. Opening waits for no limit, so the caller does
// that first.
func openCost(e *storage.Entry) int { return int(min(8*e.Manifest.Pages.Present, 1<<30)) }

// scrub verifies one dump.
func (s *Scrubber) scrub(ctx context.Context, e *storage.Entry) {
	log := s.Log.With("host", e.Host, "dump", e.ID)
	if s.limit(ctx, openCost(e)) != nil {
		return
	}
	begin := time.Now()
	rep, err := Check(ctx, s.Store, e, dumpdir.VerifyOptions{Limit: s.limit})
	if ctx.Err() != nil {
		return
	}
	if rep != nil {
		logReport(log, e, rep, time.Since(begin))
		s.dropTornReport(ctx, e, log)
	}
	if err != nil {
		s.later[e.Ref] = time.Now().Add(retry)
		if !Moved(err) {
			log.Error("scrub: a dump was not verified, or the result not recorded; trying again", "after", retry, "error", err)
		}
	}
}

// dropTornReport removes a report.json that cannot be read, so that it is made again: lists read only its beginning and its end.
func (s *Scrubber) dropTornReport(ctx context.Context, e *storage.Entry, log *slog.Logger) {
	if e.Report == nil || s.limit(ctx, openCost(e)+int(e.ReportBytes)) != nil {
		return
	}
	d, err := s.Store.Open(ctx, e.Ref)
	if err != nil {
		return // the dump itself is damaged, which is reported, or gone
	}
	_, torn := d.Report()
	if err := d.Close(); err != nil {
		log.Warn("scrub: closing a dump", "error", err)
	}
	if _, is := errors.AsType[*dumpdir.DamageError](torn); !is {
		return
	}
	if err := s.Store.RemoveSide(ctx, e.Ref, dumpdir.ReportName); err != nil {
		log.Error("scrub: a crash report is damaged, and was not removed; remove it to have it made again", "path", e.Path, "damage", torn, "error", err)
		return
	}
	log.Warn("scrub: a crash report is damaged; it was removed, to be made again", "path", e.Path, "damage", torn)
}

// logReport logs the result of a verification.
func logReport(log *slog.Logger, e *storage.Entry, rep *dumpdir.Report, took time.Duration) {
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

// Check verifies a sealed dump of a store and records the result. Without a limit it reads from the disk as fast as it can.
// If it returns a report and an error, the report is valid but could not be recorded. It returns no report if the dump was
// not verified or Moved.
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

// verify returns the report, and the manifest at the time when the dump was opened.
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

// Moved reports whether an error of Check says that this sealed dump does not exist any more: it is gone, its sender came
// back, or it was sealed again.
func Moved(err error) bool {
	return errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrChanged) || errors.Is(err, storage.ErrArriving)
}
