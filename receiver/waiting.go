package receiver

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
)

// declinedError ends the wait of a session whose pages the rules do not want.
type declinedError struct{ decision admission.Decision }

func (e *declinedError) Error() string { return e.decision.Reason }

// heartbeat is how often sender and receiver send something: four times within the idle timeout.
func (ss *session) heartbeat() time.Duration { return max(ss.cfg.IdleTimeout/4, time.Millisecond) }

// reviewEvery is how often a waiting session checks whether it may go on.
func (ss *session) reviewEvery() time.Duration {
	return min(maxReview, max(ss.heartbeat()/8, time.Millisecond))
}

const maxReview = 3 * time.Second

// waitForSlot waits until the session is admitted and sends the sender its place. If the sender gives up, it sends FINISH,
// which is returned. The error is a *declinedError if a rule wants no pages.
func (ss *session) waitForSlot(ctx context.Context) (*protocol.Finish, error) {
	ss.view.enter(stateWaiting)
	d := ss.decide(ctx, false)
	if d.Declines() {
		return nil, &declinedError{d}
	}
	ss.ticket = ss.srv.queue.Join(ss.ref.Host, d.Hold())
	ss.view.queued(ss.ticket)
	return ss.waitUntilAdmitted(ctx, func() error {
		d := ss.decide(ctx, false)
		if d.Declines() {
			return &declinedError{d}
		}
		ss.ticket.SetHold(d.Hold())
		return nil
	})
}

// decide asks the rules about this dump, and logs an answer that is new.
func (ss *session) decide(ctx context.Context, noRoom bool) admission.Decision {
	m := ss.W.Manifest()
	d := ss.srv.rules.Decide(ctx, &admission.Crash{
		Ref: ss.ref, PanicLine: m.PanicLine, LogBytes: m.Bytes.Log, Began: m.StartTime, HasPages: ss.W.Progress().Present > 0, NoRoom: noRoom,
	})
	if d.Action != ss.decision.Action || d.Rule != ss.decision.Rule {
		level := slog.LevelInfo
		if d.Rule == "" && ss.decision.Rule == "" {
			level = slog.LevelDebug // the usual answer
		}
		ss.log.Log(ctx, level, "admission", "action", string(d.Action), "rule", d.Rule, "reason", d.Reason)
	}
	ss.decision = d
	return d
}

// waitUntilAdmitted waits until the ticket has a slot. It calls review first, and whenever something may have changed. An
// error of review ends the wait.
func (ss *session) waitUntilAdmitted(ctx context.Context, review func() error) (*protocol.Finish, error) {
	tick := time.NewTicker(ss.reviewEvery())
	defer tick.Stop()
	said := saying{every: ss.heartbeat()}
	for {
		if err := review(); err != nil {
			return nil, err
		}
		place, why := ss.ticket.Position()
		if place == 0 {
			return nil, nil // the sender goes on
		}
		if err := ss.sendPlace(&said, place, why); err != nil {
			return nil, err
		}
		select {
		case <-ss.ticket.Changed():
		case <-tick.C:
			ss.srv.queue.Review(ss.reviewEvery() / 2)
		case m := <-ss.Incoming(ctx):
			return ss.Finish(m)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// saying is the last WAIT to a sender, so that it is not repeated too often.
type saying struct {
	every time.Duration
	last  protocol.Wait
	why   admission.Obstacle
	at    time.Time
}

// sendPlace sends the sender its place and why it waits, if that has changed or was not sent for a while.
func (ss *session) sendPlace(said *saying, place int, why admission.Obstacle) error {
	of := max(ss.srv.queue.Waiting(), place)
	msg := protocol.Wait{Place: uint64(place), Of: uint64(of), Reason: ss.obstacle(why)}
	news := msg.Place != said.last.Place || why != said.why || said.at.IsZero()
	if !news && time.Since(said.at) < said.every {
		return nil
	}
	if why != said.why || said.at.IsZero() {
		ss.log.Info("waiting", "place", place, "of", of, "reason", msg.Reason)
	}
	said.last, said.why, said.at = msg, why, time.Now()
	ss.view.because(msg.Reason)
	return ss.Write(&msg)
}

// obstacle returns the text of why the session waits.
func (ss *session) obstacle(why admission.Obstacle) string {
	switch why {
	case admission.ObstacleHold:
		return ss.ticket.Hold()
	case admission.ObstacleHost:
		return fmt.Sprintf("host %s may send only %d dumps at a time", ss.ref.Host, ss.cfg.MaxHostSessions)
	case admission.ObstacleRoom:
		return ss.shortage().Error()
	case admission.ObstacleReserved:
		return "free space is reserved for a dump that has waited longer"
	}
	return "other dumps come first"
}

// makeRoom waits until there is room for the plan. It has no slot meanwhile, so that others may go on. It may narrow what
// is collected. If the sender gives up, it sends FINISH, which is returned.
func (ss *session) makeRoom(ctx context.Context, m *protocol.PlanEnd) (*protocol.Finish, error) {
	if err := ss.fits(ctx, m); err != nil {
		return nil, err
	}
	ss.requestRoom(ctx, m)
	if place, _ := ss.ticket.Position(); place == 0 {
		return nil, nil // the sender goes on
	}
	// Meanwhile its writer is in no share of the memory.
	if err := ss.Hold(writerBytes); err != nil {
		return nil, noSpace(ss.shortage())
	}
	defer ss.unhold(writerBytes)
	ss.view.enter(stateNoRoom)
	return ss.waitUntilAdmitted(ctx, func() error { return ss.reviewPlan(ctx, m) })
}

// reviewPlan checks again a plan without room.
func (ss *session) reviewPlan(ctx context.Context, m *protocol.PlanEnd) error {
	place, why := ss.ticket.Position()
	if place == 0 || why != admission.ObstacleRoom && why != admission.ObstacleReserved && why != admission.ObstacleHold {
		return nil
	}
	d := ss.decide(ctx, true)
	switch {
	case d.Declines():
		return &declinedError{d}
	case d.Action == admission.ActionEssential && ss.collect != protocol.CollectEssential:
		ss.narrow(m, d.Reason)
		ss.requestRoom(ctx, m)
		return nil
	}
	ss.ticket.SetHold(ss.overShare(ctx))
	return nil
}
