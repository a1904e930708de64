package kdumpclients

import (
	"context"
	"os"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// room charges the host for n bytes before they are staged. The error matches syscall.ENOSPC if the reserve of the disk or
// the limit of the host does not allow them.
func (h *host) room(n int64) error {
	return h.account.Stage(context.Background(), uint64(n)) //nolint:gosec // not negative
}

// roomOf is room for n bytes of an upload. A log may take from the reserve.
func (h *host) roomOf(u *upload, n int64) error {
	if u.log == nil {
		return h.room(n)
	}
	return h.account.StageLog(context.Background(), uint64(n)) //nolint:gosec // not negative
}

// giveRoom gives back n bytes that room charged and that took no new space, because they were written over others.
func (h *host) giveRoom(n int64) { h.account.Unstage(uint64(max(0, n))) }

// unstage sets the staged bytes of the host to what its files use on the disk.
func (h *host) unstage() {
	left := uint64(0)
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return // the old sum is too high at most, and the next start counts again
	}
	for _, e := range entries {
		if st, err := e.Info(); err == nil {
			left += plainfile.Blocks(st)
		}
	}
	h.account.SetStaged(left)
}

// Free implements Tree.
func (t *tree) Free(string) (uint64, error) { return t.account.StagingFree(context.Background()) }
