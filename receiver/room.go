package receiver

import (
	"context"
	"errors"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
)

// freeTier is the sender's name for the tier of pages that nobody uses. All of them may be zero.
const freeTier = "free"

// demand returns how many pages of a plan are to come, and what they ask of the disk.
func (ss *session) demand(m *protocol.PlanEnd) (pages uint64, d admission.Demand) {
	d = admission.Demand{Planned: m.Kept, MaxPFN: uint64(ss.Hello.MaxPFN), PageSize: uint64(ss.Hello.PageSize)}
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
	err := ss.srv.room.CheckCapacity(ctx, ss.ref.Host, ss.need)
	var tooLarge *admission.NoRoomError
	if errors.As(err, &tooLarge) && ss.collect != protocol.CollectEssential {
		ss.narrow(m, tooLarge.Error())
		if ss.srv.room.CheckCapacity(ctx, ss.ref.Host, ss.need) == nil {
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
	return ss.srv.room.Shortage(ss.srv.queue.Reserved("", ss.ticket), ss.need)
}

// overShare returns why the host may not store the plan now, empty if it may.
func (ss *session) overShare(ctx context.Context) (hold string) {
	hold, err := ss.srv.room.HostHold(ctx, ss.ref.Host, ss.srv.queue.Reserved(ss.ref.Host, ss.ticket), ss.need)
	if err != nil {
		ss.log.Warn("cannot find out how much the host has stored", "error", err)
	}
	return hold
}

// RoomFor stops a dump whose next bytes would eat into the reserve. It runs in the workers.
func (ss *session) RoomFor(ctx context.Context, chunk *dumpdir.Chunk) error {
	return noSpace(ss.srv.room.CheckReserve(ctx, uint64(len(chunk.Data))))
}

// shareCheckEvery is how often a session looks what its host has stored: that takes a look at every one of its dumps.
const shareCheckEvery = 5 * time.Second

// checkShare stops a dump that has used up its host's share.
func (ss *session) checkShare(ctx context.Context) error {
	if time.Since(ss.shareChecked) < shareCheckEvery {
		return nil
	}
	ss.shareChecked = time.Now()
	return noSpace(ss.srv.room.CheckHost(ctx, ss.ref.Host))
}

// noSpace returns err as the sender hears it, if it is about room.
func noSpace(err error) error {
	var room *admission.NoRoomError
	if !errors.As(err, &room) {
		return err
	}
	told := protocol.Errorf(protocol.CodeNoSpace, "%w", room)
	told.Hint, told.RetryAfter = "free some space on the receiver", intake.SpaceRetryAfter
	return told
}
