package admission

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/storage"
)

// maxHistory bounds the listed dumps: the newest by the time of their crash.
const maxHistory = 10000

// panicHistory counts dumps by panic title. It lists the dumps of the store at the first question and then in the background, and
// adds each dump that it is asked about. So the cost of a question does not depend on the number of dumps.
type panicHistory struct {
	store storage.Store

	listing sync.Mutex // held while the dumps are listed

	mu    sync.Mutex
	seen  sightings  // nil until the dumps are listed
	asked bool       // count was called since the last listing began
	added []sighting // dumps that count added since then
}

// sighting is one dump.
type sighting struct {
	title string
	came  time.Time
	ref   storage.Ref
}

// sightings has the dumps of each key, sorted by time.
type sightings map[panicKey][]sighting

// panicKey selects the dumps with a title: those of one host, or of all hosts if host is empty.
type panicKey struct{ title, host string }

// add adds a dump and reports whether it is new.
func (s sightings) add(d sighting) (added bool) {
	for _, host := range []string{d.ref.Host, ""} {
		key := panicKey{d.title, host}
		if i, there := slices.BinarySearchFunc(s[key], d, inOrder); !there {
			s[key], added = slices.Insert(s[key], i, d), true
		}
	}
	return added
}

// inOrder compares sightings of one title.
func inOrder(a, b sighting) int {
	return cmp.Or(a.came.Compare(b.came), cmp.Compare(a.ref.Host, b.ref.Host), cmp.Compare(a.ref.ID, b.ref.ID))
}

// before returns how many dumps of key came before t.
func (s sightings) before(key panicKey, t time.Time) int {
	i, _ := slices.BinarySearchFunc(s[key], sighting{came: t}, inOrder)
	return i
}

// count returns how many dumps with c's title, of the hosts that r counts, came before c. It leaves out later ones, so a dump
// gets the same answer when its sender comes back.
func (h *panicHistory) count(ctx context.Context, r *Rule, c *Crash) (int, error) {
	d := sighting{printk.Title(c.PanicLine), c.Began, c.Ref}
	if d.title == "" {
		return 0, nil
	}
	if err := h.load(ctx); err != nil {
		return 0, err
	}
	key := panicKey{title: d.title}
	if r.SameCrashFrom != ScopeFleet {
		key.host = c.Ref.Host
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = true
	if h.seen.add(d) {
		h.added = append(h.added, d)
	}
	n := h.seen.before(key, c.Began)
	if r.Within > 0 {
		n -= h.seen.before(key, time.Now().Add(-r.Within))
	}
	return max(n, 0), nil
}

// load lists the dumps unless they are listed.
func (h *panicHistory) load(ctx context.Context) error {
	h.listing.Lock()
	defer h.listing.Unlock()
	h.mu.Lock()
	loaded := h.seen != nil
	h.mu.Unlock()
	if loaded {
		return nil
	}
	return h.list(ctx)
}

// refresh lists the dumps again if count was called since the last listing.
func (h *panicHistory) refresh(ctx context.Context) error {
	h.mu.Lock()
	asked := h.asked
	h.asked, h.added = false, nil
	h.mu.Unlock()
	if !asked {
		return nil
	}
	return h.list(ctx)
}

// list lists the dumps. It keeps those that count added meanwhile.
func (h *panicHistory) list(ctx context.Context) error {
	entries, err := h.store.List(ctx, storage.Filter{Limit: maxHistory})
	if err != nil {
		return fmt.Errorf("list the dumps: %w", err)
	}
	seen := sightings{}
	for _, e := range entries {
		if title := printk.Title(e.Manifest.PanicLine); title != "" {
			seen.add(sighting{title, e.Manifest.StartTime, e.Ref})
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.added {
		seen.add(d)
	}
	h.seen = seen
	return nil
}
