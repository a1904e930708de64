package receiver

import (
	"context"
	"fmt"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/storage"
)

// minRatio is how well the pages of a kernel are compressed at the very best. A plan
// has to wait that does not fit even then; one that turns out not to fit is cut
// off when the reserve is reached, and goes on when there is room, or is sealed as it is.
const minRatio = 8

// descBytes is what each planned page costs in the front of vmcore.
const descBytes = 24

// freeTier is the sender's name for the tier of pages that nobody uses. All of them may be zero.
const freeTier = "free"

// sampleBytes is how much of a dump, raw, has to be here before the rest is judged by it.
const sampleBytes = 16 << 20

// frontBytes returns the size of the front of vmcore, about.
func frontBytes(m *protocol.PlanEnd, h *protocol.Hello) uint64 {
	return m.Kept*descBytes + 2*uint64(h.MaxPFN)/8
}

// wanted returns how many pages of the plan are to come, and how many of them take room.
func wanted(m *protocol.PlanEnd, collect protocol.Collect) (pages, solid uint64) {
	for _, t := range m.Tiers {
		if collect == protocol.CollectEssential && !t.Essential {
			continue
		}
		pages += t.Pages
		if t.Name != freeTier {
			solid += t.Pages
		}
	}
	return pages, solid
}

// leastBytes returns what the rest of a dump takes at the very least: half of what it
// takes at the rate so far, once that is known. Nobody has to wait, or is turned away,
// for room that he may not need.
func leastBytes(p dumpdir.Progress, solid, pageSize uint64) uint64 {
	missing := (solid - min(solid, p.Present)) * pageSize
	if at, ok := rate(p, pageSize); ok {
		return min(missing, uint64(float64(missing)*at/2))
	}
	return missing / minRatio
}

// likelyBytes returns what the rest of a dump is going to take. The pages that have come
// are the best sample of those that have not.
func likelyBytes(p dumpdir.Progress, solid, pageSize uint64) uint64 {
	missing := (solid - min(solid, p.Present)) * pageSize
	if at, ok := rate(p, pageSize); ok {
		return min(missing, uint64(float64(missing)*at))
	}
	return missing / minRatio
}

// rate returns the stored bytes for each raw byte so far.
func rate(p dumpdir.Progress, pageSize uint64) (at float64, ok bool) {
	raw := p.Present * pageSize
	if raw < sampleBytes {
		return 0, false
	}
	return float64(max(p.PageData, 0)) / float64(raw), true
}

// freeSpace returns what is free beyond the reserve; bounded is false for a store without a limit.
func (s *Server) freeSpace(ctx context.Context) (free uint64, bounded bool, err error) {
	space, err := s.cfg.Store.Space(ctx)
	if err != nil || space.Total == 0 {
		return 0, false, err
	}
	return space.Free - min(space.Free, s.cfg.Reserve), true, nil
}

// queueSpace is freeSpace for the queue. A disk that does not tell keeps nobody away.
func (s *Server) queueSpace() (free uint64, bounded bool) {
	free, bounded, err := s.freeSpace(context.Background()) //nolint:contextcheck // statfs does not wait; the queue belongs to no session
	if err != nil {
		s.cfg.Log.Warn("cannot tell how much room there is", "error", err)
	}
	return free, bounded && err == nil
}

// hostBytes returns what is stored of a host, arriving dumps and challengers included.
func (s *Server) hostBytes(ctx context.Context, host string) (uint64, error) {
	entries, err := s.cfg.Store.List(ctx, storage.Filter{Host: host})
	if err != nil {
		return 0, fmt.Errorf("list the dumps of the host: %w", err)
	}
	sum := uint64(0)
	for i := range entries {
		sum += entries[i].Bytes()
	}
	next, err := s.challengerBytes(ctx, host)
	return sum + next, err
}

func storedBytes(m *dumpdir.Manifest) uint64 {
	return uint64(max(0, m.Bytes.VMCore)) + uint64(max(0, m.Bytes.Log))
}

// quota returns why the host may not store need bytes more now, empty if it may.
func (ss *session) quota(ctx context.Context, need uint64) (hold string) {
	limit := ss.cfg.MaxHostBytes
	if limit == 0 {
		return ""
	}
	has, err := ss.srv.hostBytes(ctx, ss.ref.Host)
	if err != nil {
		ss.log.Warn("cannot tell how much the host has stored", "error", err)
		return ""
	}
	has += ss.srv.queue.Reserved(ss.ref.Host, ss.ticket)
	if has+need <= limit {
		return ""
	}
	return fmt.Sprintf("host %s may store %s and has %s; this dump needs at least %s", ss.ref.Host, size(limit), size(has), size(need))
}

// checkRoom stops a dump whose next bytes would eat into the reserve, which is for the logs of others. Without
// a reserve the disk itself says when it is full.
func (ss *session) checkRoom(ctx context.Context, need uint64) error {
	if ss.cfg.Reserve == 0 {
		return nil
	}
	space, err := ss.cfg.Store.Space(ctx)
	if err != nil || space.Total == 0 || space.Free >= ss.cfg.Reserve+need {
		return err
	}
	return noSpace("%s free, %s are reserved, a chunk needs %s", size(space.Free), size(ss.cfg.Reserve), size(need))
}

// checkQuota stops a dump that has used up its host's share.
func (ss *session) checkQuota(ctx context.Context) error {
	if ss.cfg.MaxHostBytes == 0 || time.Since(ss.quotaSeen) < quotaEvery {
		return nil
	}
	ss.quotaSeen = time.Now()
	has, err := ss.srv.hostBytes(ctx, ss.ref.Host)
	if err == nil && has > ss.cfg.MaxHostBytes {
		return noSpace("host %s may store %s and has %s", ss.ref.Host, size(ss.cfg.MaxHostBytes), size(has))
	}
	return err
}

// quotaEvery is how often a session looks what its host has stored: that takes a look at every one of its dumps.
const quotaEvery = 5 * time.Second

func noSpace(format string, args ...any) error {
	err := protocol.Errorf(protocol.CodeNoSpace, format, args...)
	err.Hint, err.RetryAfter = "somebody has to make room on the receiver", intake.SpaceRetryAfter
	return err
}

// size formats a number of bytes for people, finely enough to compare two of them.
func size(n uint64) string {
	if n < 10<<30 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
