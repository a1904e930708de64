package reports

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/triage"
	"github.com/corehaul/corehaul/triage/cage"
)

// need says which report of a dump is missing.
type need int

const (
	nothing need = iota
	ofLog        // of the log, while the dump arrives
	ofDump       // of the sealed dump
	renewal      // of the sealed dump, which has one by another version of the program
)

// needs returns which report the dump e needs.
func (r *Runner) needs(e *storage.Entry) need {
	m, h := &e.Manifest, e.Report
	there := h != nil && h.Describes(m)
	switch {
	case m.State == dumpdir.StateArriving && (m.Bytes.Log == 0 || there && !r.outdated(h)):
		return nothing
	case m.State == dumpdir.StateArriving:
		return ofLog
	case !there:
		return ofDump
	case r.outdated(h):
		return renewal
	}
	return nothing
}

// outdated reports whether another version of the program made a report. One whose form this program does not know is by a later version.
func (r *Runner) outdated(h *dumpdir.ReportHead) bool {
	return h.Program != r.Program && h.ReportVersion <= triage.Version
}

// result is what became of one dump.
type result struct {
	ref  storage.Ref
	lane lane
	need need // what the dump needs, if that is not for this lane
	err  error
	took time.Duration
}

// make makes the report that a dump needs now, which may be another one than when the dump was put into the lane.
func (r *Runner) make(ctx context.Context, ref storage.Ref, l lane) result {
	begin := time.Now()
	res := result{ref: ref, lane: l}
	e, err := r.Store.Find(ctx, ref.String())
	if err == nil && e.Ref != ref {
		err = storage.ErrNotFound
	}
	if err == nil {
		if need := r.needs(&e); l.makes(need) {
			err = r.report(ctx, &e, need, begin)
		} else {
			res.need = need
		}
	}
	if !moved(err) && !r.gone(ctx, ref, err) {
		res.err = err
	}
	res.took = time.Since(begin)
	return res
}

// gone reports whether a report could not be made because the dump was removed meanwhile.
func (r *Runner) gone(ctx context.Context, ref storage.Ref, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err = r.Store.Find(ctx, ref.String())
	return errors.Is(err, storage.ErrNotFound)
}

// moved reports whether err says that the dump is gone, its sender came back, or it was sealed again. Then there is a hint, or nothing to do.
func moved(err error) bool {
	return errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrChanged)
}

// report makes and stores one report.
func (r *Runner) report(ctx context.Context, e *storage.Entry, n need, begin time.Time) error {
	var report *triage.Report
	var err error
	if n == ofLog {
		report, err = r.ofLog(ctx, e)
	} else {
		report, err = r.ofDump(ctx, e)
	}
	if err != nil {
		return err
	}
	f, size, err := r.stored(&e.Manifest, report)
	if err != nil {
		return err
	}
	if r.Charge != nil {
		if err := r.Charge(ctx, e.Host, uint64(size)); err != nil {
			return noRoom{err}
		}
	}
	if err := r.save(ctx, e, f); err != nil {
		return err
	}
	r.Log.Info("crash report", "host", e.Host, "dump", e.ID, "of", f.Of, "kind", f.Kind, "title", f.Title, "took", time.Since(begin).Round(time.Millisecond))
	return nil
}

// save stores a report. A session that has just sealed the dump holds it for a moment longer, so save tries for a while.
func (r *Runner) save(ctx context.Context, e *storage.Entry, f *dumpdir.StoredReport) error {
	if f.Of == dumpdir.ReportOfLog {
		return r.Store.SaveSide(ctx, e.Ref, f, nil)
	}
	for wait := firstWait; ; wait *= 2 {
		err := r.Store.SaveSide(ctx, e.Ref, f, &e.Manifest)
		if !errors.Is(err, storage.ErrChanged) || wait > lastWait {
			return err
		}
		now, ferr := r.Store.Find(ctx, e.String())
		if ferr != nil || !f.Describes(&now.Manifest) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// noRoom is an error of Runner.Charge: only one host has used up its room.
type noRoom struct{ error }

func (e noRoom) Unwrap() error { return e.error }

// ofLog reads the log. If the log is at fault, the report says so: the same program would fail again.
func (r *Runner) ofLog(ctx context.Context, e *storage.Entry) (*triage.Report, error) {
	report, err := r.Maker.Log(ctx, e.Path)
	if failed, ok := errors.AsType[*cage.FailedError](err); ok {
		return empty(failed.Reason), nil
	}
	return report, err
}

// ofDump reads the dump. If the dump is at fault, its log may still be read.
func (r *Runner) ofDump(ctx context.Context, e *storage.Entry) (*triage.Report, error) {
	report, err := r.Maker.Dump(ctx, e.Path)
	failed, ok := errors.AsType[*cage.FailedError](err)
	if !ok {
		return report, err
	}
	if e.Manifest.Bytes.Log == 0 {
		return empty(failed.Reason), nil
	}
	report, err = r.ofLog(ctx, e)
	if err != nil {
		return nil, err
	}
	report.Unread = append(report.Unread, "memory: "+failed.Reason)
	return report, nil
}

// empty is the report of a dump that cannot be read.
func empty(why string) *triage.Report {
	return &triage.Report{Version: triage.Version, Sources: []string{}, Kind: "unknown", Unread: []string{why}}
}
