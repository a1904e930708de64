package kdumpclients

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/storage"
)

const (
	// grant is how many bytes a host may write before the disk and its share are looked at again.
	grant = 8 << 20
	// storedFor is how long the sum of a host's dumps is good for.
	storedFor = 10 * time.Second
)

// usage is what a host takes of the disk.
type usage struct {
	mu      sync.Mutex
	granted int64 // that may still be written without a look
	staged  int64 // bytes that wait to be a dump
	stored  uint64
	asked   time.Time // when stored was found
}

// room reserves n bytes that are about to be staged. The error matches syscall.ENOSPC when the reserve of the disk or the
// host's share does not allow them.
func (h *host) room(n int64) error {
	u := &h.usage
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.granted < n {
		free, err := h.free()
		if err != nil {
			return err
		}
		left := int64(min(free, math.MaxInt64))
		if n > left {
			return fmt.Errorf("%w: %d bytes are left for host %s", syscall.ENOSPC, free, h.name)
		}
		u.granted = min(left, n+grant)
	}
	u.granted -= n
	u.staged += n
	h.svc.staged.Add(n)
	return nil
}

// giveRoom gives back n bytes that room reserved and that took no more room on the disk: they were written over others.
func (h *host) giveRoom(n int64) {
	u := &h.usage
	u.mu.Lock()
	defer u.mu.Unlock()
	u.granted += n
	u.staged -= n
	h.svc.staged.Add(-n)
}

// unstage gives back what was staged of the host and is not there any more: all that its files do not take.
func (h *host) unstage() {
	left := int64(0)
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return // what is too much costs room, and the next start counts anew
	}
	for _, e := range entries {
		if st, err := e.Info(); err == nil {
			left += stored(st)
		}
	}
	u := &h.usage
	u.mu.Lock()
	defer u.mu.Unlock()
	h.svc.staged.Add(left - u.staged)
	u.staged, u.granted, u.asked = left, 0, time.Time{} // it may be stored now
}

// stored returns the bytes that a file takes on the disk: dumps have holes.
func stored(st os.FileInfo) int64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return min(sys.Blocks*512, st.Size())
	}
	return st.Size()
}

// free returns how much the host may write. What is staged of anyone is going to need its room a second time, when it becomes a
// dump. usage.mu is held.
func (h *host) free() (uint64, error) {
	free := uint64(math.MaxInt64)
	space, err := h.svc.cfg.Store.Space(context.Background())
	if err != nil {
		return 0, err
	}
	if space.Total > 0 {
		staged := uint64(max(0, h.svc.staged.Load()))
		free = less(less(space.Free, h.svc.cfg.Reserve), staged) / 2
	}
	limit := h.svc.cfg.MaxHostBytes
	if limit == 0 {
		return free, nil
	}
	if time.Since(h.usage.asked) > storedFor {
		if h.usage.stored, err = h.storedBytes(); err != nil {
			return 0, err
		}
		h.usage.asked = time.Now()
	}
	return min(free, less(limit, h.usage.stored+uint64(max(0, h.usage.staged)))), nil
}

// less returns a-b, or 0.
func less(a, b uint64) uint64 { return a - min(a, b) }

// storedBytes returns what the dumps of the host take.
func (h *host) storedBytes() (sum uint64, err error) {
	entries, err := h.svc.cfg.Store.List(context.Background(), storage.Filter{Host: h.name})
	for i := range entries {
		sum += entries[i].Bytes()
	}
	return sum, err
}

// Free implements Tree.
func (t *tree) Free(string) (uint64, error) {
	t.usage.mu.Lock()
	defer t.usage.mu.Unlock()
	return t.free()
}
