package receiver

import (
	"context"
	"errors"

	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
)

// freeTier is the sender's name for the tier of pages that nobody uses. All of them may be zero.
const freeTier = "free"

// demand returns how many pages of a plan are to come, and what they ask of the disk.
func (ss *session) demand(m *protocol.PlanEnd) (pages uint64, d admission.Demand) {
	d = admission.Demand{Planned: m.Kept, Bitmaps: ss.BitmapBytes(), PageSize: uint64(ss.Hello.PageSize)}
	for _, t := range m.Tiers {
		if ss.collect == protocol.CollectEssential && !t.Essential {
			continue
		}
		pages += t.Pages
		if t.Name != freeTier {
			d.Solid += t.Pages
		}
	}
	return pages, d
}

// size computes what the plan needs, of what is collected of it.
func (ss *session) size(m *protocol.PlanEnd) {
	var d admission.Demand
	ss.pages, d = ss.demand(m)
	ss.need = d.Least(ss.W.Progress())
	ss.view.plan(ss.pages)
}

// fits sees that the plan could fit at all. One that is larger than the store, or than
// what its host may have, is narrowed to its essential tiers, which are better than nothing.
func (ss *session) fits(ctx context.Context, m *protocol.PlanEnd) error {
	ss.size(m)
	err := ss.cfg.Room.CheckCapacity(ctx, ss.ref.Host, ss.need)
	var tooLarge *admission.NoRoomError
	if errors.As(err, &tooLarge) && ss.collect != protocol.CollectEssential {
		ss.narrow(m, tooLarge.Error())
		if ss.cfg.Room.CheckCapacity(ctx, ss.ref.Host, ss.need) == nil {
			return nil
		}
	}
	return noSpace(err)
}

// narrow collects the essential tiers only.
func (ss *session) narrow(m *protocol.PlanEnd, why string) {
	ss.collect, ss.note = protocol.CollectEssential, why
	ss.log.Info("admission", "action", string(admission.ActionEssential), "rule", ss.decision.Rule, "reason", why)
	ss.size(m)
}

// requestRoom asks the queue for the room that the plan needs.
func (ss *session) requestRoom(ctx context.Context, m *protocol.PlanEnd) {
	_, d := ss.demand(m)
	w := ss.W
	ss.ticket.RequestRoom(ss.need, ss.overShare(ctx), func() uint64 { return d.Likely(w.Progress()) })
}

// shortage says in numbers why the plan does not fit.
func (ss *session) shortage() error {
	return ss.cfg.Room.Shortage(ss.srv.queue.Reserved("", ss.ticket), ss.need)
}

// overShare returns why the host may not store the plan now, empty if it may.
func (ss *session) overShare(ctx context.Context) (hold string) {
	hold, err := ss.account.Hold(ctx, ss.srv.queue.Reserved(ss.ref.Host, ss.ticket), ss.need)
	if err != nil {
		ss.log.Warn("cannot find out how much the host has stored", "error", err)
	}
	return hold
}

// RoomFor charges the host. Log and plan come before there is a slot, or room for the pages.
func (ss *session) RoomFor(ctx context.Context, of intake.Content, bytes int64) error {
	n := uint64(max(0, bytes))
	switch of {
	case intake.Log:
		return noSpace(ss.early.Charge(ctx, n))
	case intake.Plan:
		ss.planBytes += n
		return noSpace(ss.early.Charge(ctx, n))
	}
	return noSpace(ss.account.Charge(ctx, n))
}

// roomForFront charges the host for the front of vmcore, if that is new.
func (ss *session) roomForFront(ctx context.Context, m *protocol.PlanEnd) error {
	_, d := ss.demand(m)
	return noSpace(ss.account.Charge(ctx, d.Front(ss.W.Progress())))
}

// counted is what of W has been counted as stored, beside the pages.
type counted struct {
	log     int64
	planned bool
}

// present returns what is there of W.
func (ss *session) present() counted {
	_, planned := ss.W.Plan()
	return counted{ss.W.Manifest().Bytes.Log, planned}
}

// settle ends the charges for the log and the plan: what was there before is replaced.
func (ss *session) settle() {
	if ss.W == nil {
		return
	}
	now := ss.present()
	grown := uint64(max(0, now.log-ss.counted.log))
	if now.planned && !ss.counted.planned {
		grown += ss.planBytes
	}
	ss.early.Stored(grown)
	ss.counted = now
}

// noSpace returns err as the sender hears it, if it is about room.
func noSpace(err error) error {
	var room *admission.NoRoomError
	if !errors.As(err, &room) {
		return err
	}
	told := protocol.Errorf(protocol.CodeNoSpace, "%w", room)
	told.Hint, told.RetryAfter = room.Hint, intake.SpaceRetryAfter
	return told
}
