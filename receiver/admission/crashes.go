package admission

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/corehaul/corehaul/storage"
)

const (
	// maxHistory bounds the listed dumps: the newest by the time of their crash.
	maxHistory = 10000
	// maxHints bounds the seals that one question looks at.
	maxHints = 64
)

// crashHistory counts the dumps of each crash that are worth something: sealed, undamaged, with all pages that crash needs. It
// lists the dumps of the store at the first question and then in the background, and looks at those that are sealed meanwhile.
// So the cost of a question does not depend on the number of dumps.
type crashHistory struct {
	store  storage.Store
	signer *signer
	sealed <-chan storage.Ref

	looking sync.Mutex // held while dumps are looked at

	mu    sync.Mutex
	seen  sightings // nil until the dumps are listed
	asked bool      // count was called since the last listing began
	stale bool      // hints were missed since the last listing
}

// sighting is one dump.
type sighting struct {
	came time.Time
	ref  storage.Ref
}

// sightings has the dumps of each key, sorted by time.
type sightings map[crashKey][]sighting

// crashKey selects the dumps with a signature: those of one host, or of all hosts if host is empty.
type crashKey struct{ signature, host string }

func (s sightings) add(signature string, d sighting) {
	for _, host := range []string{d.ref.Host, ""} {
		key := crashKey{signature, host}
		if i, there := slices.BinarySearchFunc(s[key], d, inOrder); !there {
			s[key] = slices.Insert(s[key], i, d)
		}
	}
}

func (s sightings) remove(signature string, d sighting) {
	for _, host := range []string{d.ref.Host, ""} {
		key := crashKey{signature, host}
		if i, there := slices.BinarySearchFunc(s[key], d, inOrder); there {
			s[key] = slices.Delete(s[key], i, i+1)
		}
	}
}

// inOrder compares sightings of one signature.
func inOrder(a, b sighting) int {
	return cmp.Or(a.came.Compare(b.came), cmp.Compare(a.ref.Host, b.ref.Host), cmp.Compare(a.ref.ID, b.ref.ID))
}

// between returns the dumps of key that came at or after from and before to.
func (s sightings) between(key crashKey, from, to time.Time) []sighting {
	i, _ := slices.BinarySearchFunc(s[key], sighting{came: from}, inOrder)
	j, _ := slices.BinarySearchFunc(s[key], sighting{came: to}, inOrder)
	return s[key][min(i, j):j]
}

// count returns how many dumps of c's crash, of the hosts that r counts, came before c, and the signature. It leaves out later ones,
// so a dump gets the same answer when its sender comes back. If there seem to be as many as r needs, it looks at so many of them again:
// one that was removed or found to be damaged since must not cost the pages of c.
func (h *crashHistory) count(ctx context.Context, r *Rule, c *Crash) (n int, signature string, err error) {
	signature, err = h.signer.signature(ctx, c.Ref, c.LogBytes)
	if err != nil || signature == "" {
		return 0, "", err
	}
	if err := h.update(ctx); err != nil {
		return 0, "", err
	}
	key := crashKey{signature: signature}
	if r.SameCrashFrom != ScopeFleet {
		key.host = c.Ref.Host
	}
	var from time.Time
	if r.Within > 0 {
		from = time.Now().Add(-r.Within)
	}
	h.mu.Lock()
	h.asked = true
	before := h.seen.between(key, from, c.Began)
	if n = len(before); n >= r.SameCrash {
		before = slices.Clone(before)
	}
	h.mu.Unlock()
	for confirmed := 0; confirmed < r.SameCrash && n >= r.SameCrash; {
		d := before[len(before)-1]
		before = before[:len(before)-1]
		there, err := h.confirm(ctx, signature, d)
		if err != nil {
			return 0, "", err
		}
		if there {
			confirmed++
		} else {
			n--
		}
	}
	return n, signature, nil
}

// confirm reports whether a dump still counts for a signature, and forgets it if not.
func (h *crashHistory) confirm(ctx context.Context, signature string, d sighting) (bool, error) {
	e, err := h.store.Find(ctx, d.ref.String())
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return false, fmt.Errorf("find a dump of the same crash: %w", err)
	}
	if err == nil && e.Ref == d.ref && counts(&e) {
		ids, err := h.signatures(ctx, &e)
		if err != nil || slices.Contains(ids, signature) {
			return err == nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen.remove(signature, d)
	return false, nil
}

// counts reports whether a dump is worth enough that others of its crash may be left out.
func counts(e *storage.Entry) bool { return e.Substance() >= storage.EssentialPages }

// signatures returns those of a dump: by its report, and by its log until there is a report with one.
func (h *crashHistory) signatures(ctx context.Context, e *storage.Entry) (ids []string, err error) {
	ids = precise(e)
	if len(ids) > 0 {
		return ids, nil
	}
	id, err := h.signer.signature(ctx, e.Ref, e.Manifest.Bytes.Log)
	if id != "" {
		ids = []string{id}
	}
	return ids, err
}

// update lists the dumps unless they are listed, and looks at those that were sealed since. It does not wait for a listing in the
// background, which takes long in a large store.
func (h *crashHistory) update(ctx context.Context) error {
	if !h.looking.TryLock() {
		if h.loaded() {
			return nil
		}
		h.looking.Lock()
	}
	defer h.looking.Unlock()
	if !h.loaded() {
		if err := h.list(ctx); err != nil {
			return err
		}
	}
	for range maxHints {
		select {
		case ref := <-h.sealed:
			h.look(ctx, ref)
		default:
			return nil
		}
	}
	return nil
}

func (h *crashHistory) loaded() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen != nil && !h.stale
}

// look adds a dump that was sealed. One that cannot be read does not count until the next listing.
func (h *crashHistory) look(ctx context.Context, ref storage.Ref) {
	e, err := h.store.Find(ctx, ref.String())
	if err != nil || e.Ref != ref || !counts(&e) {
		return
	}
	ids, err := h.signatures(ctx, &e)
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen.addAll(ids, &e)
}

func (s sightings) addAll(ids []string, e *storage.Entry) {
	for _, id := range ids {
		s.add(id, sighting{e.Manifest.StartTime, e.Ref})
	}
}

// expire makes the next question list the dumps.
func (h *crashHistory) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stale = true
}

// refresh lists the dumps again if count was called since the last listing.
func (h *crashHistory) refresh(ctx context.Context) error {
	h.looking.Lock()
	defer h.looking.Unlock()
	h.mu.Lock()
	asked := h.asked
	h.asked = false
	h.mu.Unlock()
	if !asked {
		return nil
	}
	return h.list(ctx)
}

// list lists the dumps. looking is held.
func (h *crashHistory) list(ctx context.Context) error {
	entries, err := h.store.List(ctx, storage.Filter{Limit: maxHistory})
	if err != nil {
		return fmt.Errorf("list the dumps: %w", err)
	}
	seen := sightings{}
	budget := maxLogs
	for i := range entries {
		e := &entries[i]
		if !counts(e) {
			continue
		}
		ids := precise(e)
		if len(ids) == 0 && (budget > 0 || h.signer.knows(e.Ref, e.Manifest.Bytes.Log)) {
			if !h.signer.knows(e.Ref, e.Manifest.Bytes.Log) {
				budget--
			}
			if ids, err = h.signatures(ctx, e); ctx.Err() != nil {
				return err
			}
		}
		seen.addAll(ids, e)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen, h.stale = seen, false
	return nil
}
