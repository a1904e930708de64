package admission

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/storage"
)

// panicHistory counts stored dumps by panic title.
type panicHistory struct {
	store storage.Store
	mu    sync.Mutex
	taken time.Time // before the list was asked for
	seen  []sighting
}

// sighting is one stored dump.
type sighting struct {
	ref   storage.Ref
	title string
	came  time.Time
}

// maxHistory bounds the dumps that are looked at, the newest ones by their crash.
const maxHistory = 10000

// count returns how many dumps with c's title came before it, of the hosts that r counts.
func (h *panicHistory) count(ctx context.Context, r *Rule, c *Crash, notBefore time.Time) (int, error) {
	title := printk.Title(c.PanicLine)
	if title == "" {
		return 0, nil
	}
	seen, err := h.fresh(ctx, notBefore)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, d := range seen {
		// Those that came later do not count: the same dump gets the same answer when its sender comes back.
		switch {
		case d.title != title, d.ref == c.Ref, !d.came.Before(c.Began):
		case r.SamePanicFrom != ScopeFleet && d.ref.Host != c.Ref.Host:
		case r.Within > 0 && time.Since(d.came) > r.Within:
		default:
			n++
		}
	}
	return n, nil
}

// fresh returns a list that is no older than notBefore. When many ask at a time, one
// list serves all who asked before it was taken.
func (h *panicHistory) fresh(ctx context.Context, notBefore time.Time) ([]sighting, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.taken.IsZero() && !h.taken.Before(notBefore) {
		return h.seen, nil
	}
	now := time.Now()
	entries, err := h.store.List(ctx, storage.Filter{Limit: maxHistory})
	if err != nil {
		return nil, fmt.Errorf("list the dumps: %w", err)
	}
	seen := make([]sighting, 0, len(entries))
	for _, e := range entries {
		if title := printk.Title(e.Manifest.PanicLine); title != "" {
			seen = append(seen, sighting{ref: e.Ref, title: title, came: e.Manifest.StartTime})
		}
	}
	h.taken, h.seen = now, seen
	return seen, nil
}
