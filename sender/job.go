package sender

import (
	"context"
	"errors"
	"io"

	"github.com/corehaul/corehaul/protocol"
)

func isEOF(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// newHello says who crashed. What is not known stays out.
func (j *job) newHello() protocol.Hello {
	info := j.src.info
	h := protocol.Hello{
		DumpID: protocol.DumpID(info.VMCOREINFO.Raw(), info.Notes, j.opts.MachineID),
		Tool:   j.opts.Tool, Machine: machineName(info.Machine),
		PageSize: uint32(info.PageSize), MaxPFN: info.MaxPFN, //nolint:gosec // checked by NewSource
		NrCPUs: uint32(min(max(len(info.CPUs), 1), protocol.MaxCPUs)),
		Uts:    j.src.Utsname(), Level: uint8(j.opts.Level), Encodings: protocol.Encodings(j.ladder),
		Warnings: j.src.warnings,
	}
	if h.Tool == "" {
		h.Tool = "corehaul-send"
	}
	if h.Machine == "" {
		h.Machine = cmpOr(h.Uts.Machine, "unknown")
	}
	for _, r := range j.ram {
		h.RAMBytes += r.Len()
	}
	if id, ok := info.VMCOREINFO.String("BUILD-ID"); ok && hexDigits(id) {
		h.BuildID = id
	}
	if t, ok := info.VMCOREINFO.CrashTime(); ok && t.Unix() > 0 {
		h.CrashTime = t.Unix()
	}
	if base, ok := j.src.physBase(); ok {
		h.PhysBase = &base
	}
	return h
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// hexDigits reports whether s can stand as a build ID on the wire.
func hexDigits(s string) bool {
	if len(s)%2 != 0 || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// physBase is what the header of the dump file wants.
func (s *Source) physBase() (uint64, bool) {
	if s.kernel != nil {
		if base, ok := s.kernel.PhysBase(); ok {
			return base, true
		}
	}
	return s.info.PhysBase, s.info.PhysBase != 0
}

// startPlan begins to plan in the background, once for all sessions: it reads the memory
// map, which takes its time while a session waits for its turn.
func (j *job) startPlan() {
	if j.opts.LogOnly {
		return
	}
	j.planOnce.Do(func() {
		go func() {
			defer close(j.planDone)
			j.planErr = guard(func() (err error) {
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
		j.pipe = newPipeline(j.src, plan, j.opts.Workers, j.tally)
	}
	return j.pipe
}
