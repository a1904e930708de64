package receiver

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
)

// declinedError ends the waiting of a session from which no pages are wanted.
type declinedError struct{ verdict verdict }

func (e *declinedError) Error() string { return e.verdict.reason }

// heartbeat is how often the sender has to be heard, and hears us: four times within
// the time after which either gives up.
func (ss *session) heartbeat() time.Duration { return max(ss.cfg.IdleTimeout/4, time.Millisecond) }

// reviewEvery is how often a waiting session looks whether it may go on.
func (ss *session) reviewEvery() time.Duration {
	return min(maxReview, max(ss.heartbeat()/8, time.Millisecond))
}

const (
	maxReview = 3 * time.Second
	// censusAge is how old the counts of panics may be that a waiting session is judged by.
	censusAge = 15 * time.Second
)

// waitInLine waits until the session is let in and tells the sender its place. A
// sender that does not want to wait any longer sends FINISH, which is returned. The
// error is a *declinedError when a rule wants no pages.
func (ss *session) waitInLine(ctx context.Context) (*protocol.Finish, error) {
	ss.view.enter(stateWaiting)
	v := ss.judge(ctx, false, time.Now())
	if v.declines() {
		return nil, &declinedError{v}
	}
	ss.ticket = ss.srv.queue.Join(ss.ref.Host, v.hold())
	ss.view.queued(ss.ticket)
	return ss.stand(ctx, func() error {
		v := ss.judge(ctx, false, time.Now().Add(-censusAge))
		if v.declines() {
			return &declinedError{v}
		}
		ss.ticket.SetHold(v.hold())
		return nil
	})
}

// judge asks the rules about this dump, and logs an answer that is new.
func (ss *session) judge(ctx context.Context, noRoom bool, notBefore time.Time) verdict {
	m := ss.w.Manifest()
	c := &crash{ref: ss.ref, line: m.PanicLine, began: m.StartTime, pages: ss.w.Progress().Present > 0, noRoom: noRoom}
	v := ss.srv.judge(ctx, c, notBefore)
	if v.action != ss.verdict.action || v.rule != ss.verdict.rule {
		level := slog.LevelInfo
		if v.rule == "" && ss.verdict.rule == "" {
			level = slog.LevelDebug // nothing out of the ordinary
		}
		ss.log.Log(ctx, level, "admission", "action", string(v.action), "rule", v.rule, "reason", v.reason)
	}
	ss.verdict = v
	return v
}

// stand waits until the ticket is in. again is called at first, and whenever something
// may have changed; an error of it ends the waiting.
func (ss *session) stand(ctx context.Context, again func() error) (*protocol.Finish, error) {
	tick := time.NewTicker(ss.reviewEvery())
	defer tick.Stop()
	said := saying{every: ss.heartbeat()}
	for {
		if err := again(); err != nil {
			return nil, err
		}
		place, why := ss.ticket.Position()
		if place == 0 {
			return nil, nil //nolint:nilnil // the sender goes on
		}
		if err := ss.sendPlace(&said, place, why); err != nil {
			return nil, err
		}
		select {
		case <-ss.ticket.Changed():
		case <-tick.C:
			ss.srv.queue.Review(ss.reviewEvery() / 2)
		case r := <-ss.in.messages(ctx):
			msg, err := ss.in.got(r)
			return asFinish(msg, err, "nothing before the wait is over")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// saying keeps a sender from being told the same too often.
type saying struct {
	every time.Duration
	last  protocol.Wait
	why   admission.Obstacle
	at    time.Time
}

// sendPlace tells the sender its place and why it waits, when that is news or not told for a while.
func (ss *session) sendPlace(said *saying, place int, why admission.Obstacle) error {
	of := max(ss.srv.queue.Waiting(), place)
	msg := protocol.Wait{Place: uint64(place), Of: uint64(of), Reason: ss.obstacle(why)} //nolint:gosec // both positive
	news := msg.Place != said.last.Place || why != said.why || said.at.IsZero()
	if !news && time.Since(said.at) < said.every {
		return nil
	}
	if why != said.why || said.at.IsZero() {
		ss.log.Info("waiting", "place", place, "of", of, "reason", msg.Reason)
	}
	said.last, said.why, said.at = msg, why, time.Now()
	ss.view.because(msg.Reason)
	return ss.write(&msg)
}

// obstacle says in words why the session waits.
func (ss *session) obstacle(why admission.Obstacle) string {
	switch why {
	case admission.ObstacleHold:
		return ss.ticket.Hold()
	case admission.ObstacleHost:
		return fmt.Sprintf("host %s sends %d dumps at a time, and no more", ss.ref.Host, ss.cfg.MaxHostSessions)
	case admission.ObstacleRoom:
		return ss.noRoom()
	case admission.ObstacleReserved:
		return "the room there is is kept for a dump that has waited longer"
	}
	return "other dumps come first"
}

// noRoom is the numbers of a plan that does not fit.
func (ss *session) noRoom() string {
	free, _ := ss.srv.queueSpace()
	return fmt.Sprintf("no room: %s free beyond the reserve of %s, dumps under way need %s, this one at least %s",
		size(free), size(ss.cfg.Reserve), size(ss.srv.queue.Reserved("", ss.ticket)), size(ss.need))
}

// makeRoom waits until there is room for the plan, without a slot: others may go on
// meanwhile. It may narrow what is collected. A sender that gives up sends FINISH,
// which is returned.
func (ss *session) makeRoom(ctx context.Context, m *protocol.PlanEnd) (*protocol.Finish, error) {
	if err := ss.fits(ctx, m); err != nil {
		return nil, err
	}
	ss.askFor(ctx, m)
	if place, _ := ss.ticket.Position(); place == 0 {
		return nil, nil //nolint:nilnil // the sender goes on
	}
	// Its writer is in nobody's share meanwhile.
	if err := ss.hold(writerBytes); err != nil {
		return nil, noSpace("%s", ss.noRoom())
	}
	defer ss.unhold(writerBytes)
	ss.view.enter(stateNoRoom)
	return ss.stand(ctx, func() error { return ss.again(ctx, m) })
}

// fits sees that the plan could fit at all. One that is larger than the store, or than
// what its host may have, is narrowed to its essential tiers, which are better than nothing.
func (ss *session) fits(ctx context.Context, m *protocol.PlanEnd) error {
	space, err := ss.cfg.Store.Space(ctx)
	if err != nil {
		return err
	}
	most, whose := ss.cfg.MaxHostBytes, "host "+ss.ref.Host+" may store"
	if capacity := space.Total - min(space.Total, ss.cfg.Reserve); space.Total > 0 && (most == 0 || capacity < most) {
		most, whose = capacity, "the store holds, beside its reserve,"
	}
	if ss.size(m); most == 0 || ss.need <= most {
		return nil
	}
	too := fmt.Sprintf("%s %s, and the plan needs at least %s", whose, size(most), size(ss.need))
	if ss.collect != protocol.CollectEssential {
		ss.narrow(m, too)
	}
	if ss.need <= most {
		return nil
	}
	return noSpace("%s", too)
}

// narrow collects the essential tiers only.
func (ss *session) narrow(m *protocol.PlanEnd, why string) {
	ss.collect, ss.note = protocol.CollectEssential, why
	ss.log.Info("admission", "action", string(ActionEssential), "rule", ss.verdict.rule, "reason", why)
	ss.size(m)
}

// size computes what the plan needs, of what is collected of it.
func (ss *session) size(m *protocol.PlanEnd) {
	p := ss.w.Progress()
	var solid uint64
	ss.pages, solid = wanted(m, ss.collect)
	ss.need = leastBytes(p, solid, uint64(ss.hello.PageSize))
	if p.Planned == 0 { // else the front is there
		ss.need += frontBytes(m, ss.hello)
	}
	ss.view.plan(ss.pages)
}

// askFor asks the queue for the room that the plan needs.
func (ss *session) askFor(ctx context.Context, m *protocol.PlanEnd) {
	_, solid := wanted(m, ss.collect)
	w, pageSize := ss.w, uint64(ss.hello.PageSize)
	ss.ticket.RequestRoom(ss.need, ss.quota(ctx, ss.need), func() uint64 { return likelyBytes(w.Progress(), solid, pageSize) })
}

// again looks anew at a plan that has no room.
func (ss *session) again(ctx context.Context, m *protocol.PlanEnd) error {
	place, why := ss.ticket.Position()
	if place == 0 || why != admission.ObstacleRoom && why != admission.ObstacleReserved && why != admission.ObstacleHold {
		return nil
	}
	v := ss.judge(ctx, true, time.Now().Add(-censusAge))
	switch {
	case v.declines():
		return &declinedError{v}
	case v.action == ActionEssential && ss.collect != protocol.CollectEssential:
		ss.narrow(m, v.reason)
		ss.askFor(ctx, m)
		return nil
	}
	ss.ticket.SetHold(ss.quota(ctx, ss.need))
	return nil
}
