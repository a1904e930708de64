package sender

import (
	"context"
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/protocol"
)

// startPlan starts planning in the background, once for all sessions. Reading the memory map takes a while, and a session
// may wait in the receiver's queue meanwhile.
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

// awaitPlan waits for the plan.
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

// withoutPages returns an error if the plan had no pages, because a result would report a dump. The error says where the
// log is stored.
func (j *job) withoutPages(res *Result) error {
	select {
	case <-j.planDone:
	default:
		return nil
	}
	// A session whose plan failed ends with ReasonOther.
	if res.Reason != protocol.ReasonOther || !errors.Is(j.planErr, ErrNoPages) {
		return nil
	}
	return fmt.Errorf("%w; the log is stored as %s on %s", j.planErr, res.ID, res.Target)
}

// waitPlan waits for the end of planning, if it was started.
func (j *job) waitPlan() {
	started := true
	j.planOnce.Do(func() { started = false })
	if started {
		<-j.planDone
	}
}

// pipeline returns the pipeline that all sessions share.
func (j *job) pipeline(plan *Plan) *pipeline {
	if j.pipe == nil {
		j.pipe = newPipeline(j.src, plan, j.opts.Workers, j.meter)
	}
	return j.pipe
}
