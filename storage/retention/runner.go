package retention

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/internal/lazyregexp"
	"github.com/corehaul/corehaul/storage"
)

// Interval is the time between two runs of a Runner.
const Interval = 10 * time.Minute

// amounts matches the numbers in a Plan's texts, which change from run to run.
var amounts = lazyregexp.New(`[0-9.]+ ([KMGTPE]i)?B|[0-9]+`)

// Runner applies a policy to a store.
type Runner struct {
	Store  storage.Store
	Policy Policy // at the start: see SetPolicy
	Log    *slog.Logger

	mu      sync.Mutex
	changed func()  // ends the run of the policy that counts now; nil before Run
	next    *Policy // replaces Policy
}

// SetPolicy makes another policy count. A run that removes dumps by the policy before ends before its next dump, and the new policy is
// applied at once.
func (r *Runner) SetPolicy(p Policy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = &p
	if r.changed != nil {
		r.changed()
	}
}

// Run applies the policy now and every Interval until ctx is done. A policy without limits removes nothing.
func (r *Runner) Run(ctx context.Context) {
	start := time.Now()
	w := &watch{now: time.Now, mono: func() time.Duration { return time.Since(start) }}
	for ctx.Err() == nil {
		r.runPolicy(ctx, w)
	}
}

// policy returns the policy that counts, and a context that ends when another one does.
func (r *Runner) policy(ctx context.Context) (Policy, context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed = cancel
	if r.next != nil {
		return *r.next, ctx, cancel
	}
	return r.Policy, ctx, cancel
}

// runPolicy applies the policy until another one counts.
func (r *Runner) runPolicy(ctx context.Context, w *watch) {
	policy, ctx, cancel := r.policy(ctx)
	defer cancel()
	told := ""
	t := time.NewTicker(Interval)
	defer t.Stop()
	for {
		clock := w.look() // also for a policy that comes later
		if policy.Limits() {
			told = r.apply(ctx, policy, clock, told)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// apply applies a policy once. It returns the warnings, without numbers, and does not repeat those of the last time.
func (r *Runner) apply(ctx context.Context, policy Policy, clock Clock, told string) string {
	plan, err := r.prune(ctx, policy, clock)
	if ctx.Err() != nil {
		return told
	}
	if err != nil {
		r.Log.Error("retention failed; trying again", "after", Interval, "error", err)
	}
	now := amounts.ReplaceAllString(strings.Join(plan.Unmet, "\n"), "")
	if now != told { // warn again only if more than a number changed
		for _, u := range plan.Unmet {
			r.Log.Warn("retention: " + u)
		}
	}
	return now
}

func (r *Runner) prune(ctx context.Context, policy Policy, clock Clock) (Plan, error) {
	plan, err := Look(ctx, r.Store, policy, clock)
	if err != nil {
		return plan, err
	}
	return plan, Apply(ctx, r.Store, plan, func(x Removal, err error) {
		log := r.Log.With("host", x.Entry.Host, "dump", x.Entry.ID, "why", x.Why)
		switch {
		case err == nil:
			log.Info("retention removed a dump", "panic", x.Entry.Manifest.PanicLine, "bytes", x.Entry.Bytes())
		case Kept(err):
			log.Info("retention kept a dump", "because", err)
		default:
			log.Error("retention could not remove a dump", "error", err)
		}
	})
}

// Look calls Decide for the dumps of a store.
func Look(ctx context.Context, store storage.Store, p Policy, clock Clock) (Plan, error) {
	entries, err := store.List(ctx, storage.Filter{})
	if err != nil {
		return Plan{}, err
	}
	space, err := store.Space(ctx)
	if err != nil {
		return Plan{}, err
	}
	return Decide(entries, p, space, clock), nil
}

// Apply removes the dumps of a plan, except those that have changed since, and calls tell for each. It goes on after a dump
// that could not be removed. Its error is that of ctx.
func Apply(ctx context.Context, store storage.Store, plan Plan, tell func(Removal, error)) error {
	for i := range plan.Remove {
		if err := ctx.Err(); err != nil {
			return err
		}
		x := plan.Remove[i]
		tell(x, store.Remove(ctx, x.Entry.Ref, storage.RemoveOptions{As: &x.Entry.Manifest}))
	}
	return nil
}

// Kept reports whether the error of a removal says that the plan no longer applies to the dump: its sender came back,
// somebody pinned it, or it is gone.
func Kept(err error) bool {
	return errors.Is(err, storage.ErrPinned) || errors.Is(err, storage.ErrArriving) || errors.Is(err, storage.ErrBusy) ||
		errors.Is(err, storage.ErrChanged) || errors.Is(err, storage.ErrNotFound)
}
