package receiver

import (
	"context"
	"errors"

	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
)

// freeTier is the sender's name for the tier of free pages. All of them may be zero.
const freeTier = "free"

// demand returns the number of pages that a plan collects, and the disk space that they need.
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

// size computes how many bytes the collected tiers of the plan need.
func (ss *session) size(m *protocol.PlanEnd) {
	var d admission.Demand
	ss.pages, d = ss.demand(m)
	ss.need = d.Least(ss.W.Progress())
	ss.view.plan(ss.pages)
}

// fits returns an error if the plan could never fit. It narrows a plan that is larger than the store, or than the limit of
// its host, to the essential tiers.
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

// narrow makes the session collect only the essential tiers.
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

// shortage returns an error with the numbers that show why the plan does not fit.
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

// RoomFor charges the host. The log and the plan use Early, because they come before the session has a slot.
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

// roomForFront charges the host for the front of vmcore unless it exists.
func (ss *session) roomForFront(ctx context.Context, m *protocol.PlanEnd) error {
	_, d := ss.demand(m)
	return noSpace(ss.account.Charge(ctx, d.Front(ss.W.Progress())))
}

// counted is the part of W, apart from pages, that is counted as stored.
type counted struct {
	log     int64
	planned bool
}

// present returns the part of W that is stored now.
func (ss *session) present() counted {
	_, planned := ss.W.Plan()
	return counted{ss.W.Manifest().Bytes.Log, planned}
}

// settle ends the charges for the log and the plan. It counts only growth, because they replace older ones.
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

// noSpace converts a *NoRoomError to the error that the sender gets. It returns other errors unchanged.
func noSpace(err error) error {
	var room *admission.NoRoomError
	if !errors.As(err, &room) {
		return err
	}
	told := protocol.Errorf(protocol.CodeNoSpace, "%w", room)
	told.Hint, told.RetryAfter = room.Hint, intake.SpaceRetryAfter
	return told
}
