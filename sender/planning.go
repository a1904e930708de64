package sender

import (
	"context"
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/protocol"
)

// startPlan begins to plan in the background, once for all sessions: it reads the memory
// map, which takes its time while a session waits for its turn.
func (j *job) startPlan() {
	if j.opts.LogOnly {
		return
	}
	j.planOnce.Do(func() {
		go func() {
			defer close(j.planDone)
			j.planErr = catchPanic(func() (err error) {
				j.plan, err = j.src.Plan(j.planCtx, j.opts.Level)
				return err
			})()
			if j.planErr == nil {
				for _, w := range j.plan.Warnings {
					j.log("warning: %s", w)
				}
			}
		}()
	})
}

// awaitPlan returns the plan when it is there.
func (j *job) awaitPlan(ctx, stop context.Context) (*Plan, error) {
	select {
	case <-j.planDone:
		if j.planErr != nil {
			return nil, &localError{j.planErr}
		}
		return j.plan, nil
	case <-stop.Done():
		return nil, errDeadline
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// withoutPages returns the error of a plan that had no pages, with what became of the log: a result
// would tell of a dump.
func (j *job) withoutPages(res *Result) error {
	select {
	case <-j.planDone:
	default:
		return nil
	}
	// A session without a plan ends with that reason; one that was declined has another.
	if res.Reason != protocol.ReasonOther || !errors.Is(j.planErr, ErrNoPages) {
		return nil
	}
	return fmt.Errorf("%w; the log is stored as %s on %s", j.planErr, res.ID, res.Target)
}

// waitPlan returns when no plan is being made any more.
func (j *job) waitPlan() {
	started := true
	j.planOnce.Do(func() { started = false })
	if started {
		<-j.planDone
	}
}

// pipeline returns the buffers, which all sessions share.
func (j *job) pipeline(plan *Plan) *pipeline {
	if j.pipe == nil {
		j.pipe = newPipeline(j.src, plan, j.opts.Workers, j.meter)
	}
	return j.pipe
}
