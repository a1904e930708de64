package watch

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/corehaul/corehaul/depotcopy"
	"github.com/corehaul/corehaul/storage"
)

// roundTime is after how long a look ends with the dump that it is taking. What came meanwhile is found by the next one.
const roundTime = 20 * time.Second

// waiting is a directory that can be tried now.
type waiting struct {
	f *found
	t *track
}

// takeAll tries the directories that the walk found. It goes round the branches, so that one host with many dumps makes no other wait for more than
// one of them. It reports whether it left some for the next look.
func (r *root) takeAll(ctx context.Context, top *os.Root, w *walk) (more bool) {
	r.lines = 0
	queues, arriving := r.queues(w)
	defer r.mem.save()
	for begin := time.Now(); len(queues) > 0 && ctx.Err() == nil && !more; {
		for i, q := range queues {
			if more = time.Since(begin) > roundTime; more || ctx.Err() != nil {
				break
			}
			if r.take(ctx, top, q[0].f, q[0].t) {
				r.mem.save()
			}
			if q[0].t.later {
				arriving++
			}
			queues[i] = q[1:]
		}
		queues = slices.DeleteFunc(queues, func(q []waiting) bool { return len(q) == 0 })
	}
	failing := r.report(w.bad)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Arriving, r.status.Failing = arriving, failing
	return more && ctx.Err() == nil
}

// queues returns what can be tried now, by branch, and how many dumps are arriving.
func (r *root) queues(w *walk) (queues [][]waiting, arriving int) {
	at := map[string]int{}
	for _, f := range w.found {
		t := r.trackOf(f)
		switch {
		case f.Own && !r.ready(f, t):
			arriving++
			r.tellArriving(f, t)
			continue
		case r.clock().Before(t.next):
			if t.later {
				arriving++
			}
			continue
		}
		i, ok := at[f.branch]
		if !ok {
			i = len(queues)
			at[f.branch], queues = i, append(queues, nil)
		}
		queues[i] = append(queues[i], waiting{f, t})
	}
	return queues, arriving
}

// ready reports whether the writer of a dump directory has finished it, or has abandoned it.
func (r *root) ready(f *found, t *track) bool {
	switch quiet := r.quietFor(t); {
	case f.Sealed && !f.Locked:
		return true
	case f.Sealed:
		return quiet >= min(depotcopy.LockSilence, r.Grace)
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
	if f.Own {
		took, err = r.takeOwn(ctx, top, f, t)
	} else {
		took, err = r.takeFiles(ctx, top, f, t)
	}
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, depotcopy.ErrChanges): // somebody who changes a sealed dump again and again must not have it copied each time
		t.later, t.failure, t.next = true, "", r.clock().Add(min(laterRetry<<min(t.changes, 10), lastRetry))
		t.changes++
	case errors.Is(err, errLater), errors.Is(err, storage.ErrBusy):
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
