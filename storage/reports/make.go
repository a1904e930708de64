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
	renewal      // of the sealed dump, which has one by an older version of the program
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

// result is what became of one dump.
type result struct {
	ref  storage.Ref
	lane lane
	need need // what the dump needs, if that is not for this lane
	err  error
	took time.Duration
	// failed says why the dump could not be read.
	failed string
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
			res.failed, err = r.report(ctx, &e, need, begin)
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

// Make makes the report that a dump needs now, at once, and returns the dump with what the report says. It is for programs that
// do not call Run; another program that makes it at the same time does no harm.
func (r *Runner) Make(ctx context.Context, ref storage.Ref) (storage.Entry, error) {
	if res := r.make(ctx, ref, renewals); res.err != nil { // the lane that makes all kinds
		return storage.Entry{}, res.err
	}
	return r.Store.Find(ctx, ref.String())
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

// report makes and stores one report. failed says why the dump could not be read.
func (r *Runner) report(ctx context.Context, e *storage.Entry, n need, begin time.Time) (failed string, err error) {
	report, failed, err := r.read(ctx, e, n)
	if err != nil {
		return "", err
	}
	if failed != "" && r.good(e) {
		if kept, err := r.keep(ctx, e, failed); kept || err != nil {
			return failed, err
		}
	}
	f, size, err := r.stored(&e.Manifest, report, failed)
	if err != nil {
		return failed, err
	}
	if more := uint64(size) - min(uint64(size), e.ReportBytes); r.Charge != nil && more > 0 {
		if err := r.Charge(ctx, e.Host, more); err != nil {
			return failed, noRoom{err}
		}
	}
	if err := r.save(ctx, e, f); err != nil {
		return failed, err
	}
	r.Log.Info("crash report", "host", e.Host, "dump", e.ID, "of", f.Of, "kind", f.Kind, "title", f.Title, "took", time.Since(begin).Round(time.Millisecond))
	return failed, nil
}

// good reports whether e has a report of its present state for which the dump was read, in the form of this program.
func (r *Runner) good(e *storage.Entry) bool {
	h := e.Report
	return h != nil && h.Describes(&e.Manifest) && h.ReportVersion == triage.Version && h.Failed == ""
}

// keep keeps the report that e has, and notes in it that this program could not make a better one. It reports whether it could.
func (r *Runner) keep(ctx context.Context, e *storage.Entry, failed string) (bool, error) {
	d, err := r.Store.Open(ctx, e.Ref)
	if err != nil {
		return false, err
	}
	f, err := d.Report()
	if err := d.Close(); err != nil {
		return false, err
	}
	if err != nil || f == nil || !f.Describes(&e.Manifest) {
		return false, nil //nolint:nilerr // it is no good report after all
	}
	f.Tried = r.Program
	if err := r.save(ctx, e, f); err != nil {
		if errors.Is(err, dumpdir.ErrTooLong) {
			return false, nil
		}
		return false, err
	}
	r.Log.Warn("this version could not make the report of a dump; keeping the report of an older version", "host", e.Host, "dump", e.ID, "of", f.Program, "reason", failed)
	return true, nil
}

// save stores a report. A session that still holds the dump does not matter.
func (r *Runner) save(ctx context.Context, e *storage.Entry, f *dumpdir.StoredReport) error {
	as := &e.Manifest
	if f.Of == dumpdir.ReportOfLog {
		as = nil
	}
	return r.Store.SaveSide(ctx, e.Ref, f, as)
}

// noRoom is an error of Runner.Charge: only one host has used up its room.
type noRoom struct{ error }

func (e noRoom) Unwrap() error { return e.error }

// read makes the report that is needed. If the dump is at fault, failed says how, and the report has what else is known: the same program
// would fail again.
func (r *Runner) read(ctx context.Context, e *storage.Entry, n need) (report *triage.Report, failed string, err error) {
	if n == ofLog {
		return split(r.Maker.Log(ctx, e.Path))
	}
	report, failed, err = split(r.Maker.Dump(ctx, e.Path))
	if failed == "" || e.Manifest.Bytes.Log == 0 {
		return report, failed, err
	}
	report, _, err = split(r.Maker.Log(ctx, e.Path))
	if err != nil {
		return nil, "", err
	}
	report.Unread = append(report.Unread, "memory: "+failed)
	return report, failed, nil
}

// split tells a dump that is at fault from other errors. It has a report that says why.
func split(report *triage.Report, err error) (_ *triage.Report, failed string, _ error) {
	if f, ok := errors.AsType[*cage.FailedError](err); ok {
		return &triage.Report{Version: triage.Version, Sources: []string{}, Kind: "unknown", Unread: []string{f.Reason}}, f.Reason, nil
	}
	return report, "", err
}
