package watch

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/corehaul/corehaul/storage"
)

// lockSilence is how long the files of a sealed dump, with its lock, must not have changed before its writer counts as gone. A writer that lives
// changes the lock every 3 seconds.
const lockSilence = time.Minute

// errChanges says that a dump changed while it was copied.
var errChanges = errors.New("it changed while it was copied")

// takeRound takes at most one dump of each branch, so that one host with many dumps does not make others wait for long. It reports whether more is
// ready to be taken.
func (r *root) takeRound(ctx context.Context, top *os.Root, w *walk) (more bool) {
	had, arriving := map[string]bool{}, 0
	r.lines = 0
	defer func() { r.mem.save(r.clock()) }()
	for _, f := range w.found {
		if ctx.Err() != nil {
			return false
		}
		t := r.trackOf(f)
		switch {
		case f.own && !r.ready(f, t):
			arriving++
			r.tellArriving(f, t)
			continue
		case r.clock().Before(t.next):
		case had[f.branch]:
			more = true
		default:
			if had[f.branch] = r.take(ctx, top, f, t); had[f.branch] {
				r.mem.save(r.clock())
			}
		}
		if t.later {
			arriving++
		}
	}
	failing := r.report(w.bad)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Arriving, r.status.Failing = arriving, failing
	return more && ctx.Err() == nil
}

// ready reports whether the writer of a dump directory has finished it, or has abandoned it.
func (r *root) ready(f *found, t *track) bool {
	switch quiet := r.quietFor(t); {
	case f.sealed && !f.locked:
		return true
	case f.sealed:
		return quiet >= min(lockSilence, r.Grace)
	default:
		return quiet >= r.Grace
	}
}

// tellArriving logs once that a dump is arriving.
func (r *root) tellArriving(f *found, t *track) {
	if !t.told {
		t.told = true
		r.log.Info("a dump is arriving in a watched directory", "path", r.abs(f.rel))
	}
}

// take takes what is in one directory, and reports whether a dump was taken. It logs everything that an operator may have to know.
func (r *root) take(ctx context.Context, top *os.Root, f *found, t *track) (took bool) {
	var err error
	t.later = false
	if f.own {
		took, err = r.takeOwn(ctx, top, f)
	} else {
		took, err = r.takeFiles(ctx, f)
	}
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, errChanges), errors.Is(err, errLater), errors.Is(err, storage.ErrBusy):
		t.later, t.failure, t.next = true, "", r.clock().Add(laterRetry)
	case errors.Is(err, errEmpty):
		t.empty, t.failure = true, ""
	case err != nil:
		r.failed(f, t, err)
	default:
		r.done(f)
	}
	return took
}

// taken counts a dump.
func (r *root) taken() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Taken++
}
