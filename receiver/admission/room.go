package admission

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"syscall"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/storage"
)

// Limits bound the space of dumps in a store. 0 means no limit.
type Limits struct {
	Reserve   uint64 // bytes of the disk that dumps leave free; logs may use some of them
	HostBytes uint64 // bytes that one host may store, arriving dumps included
	HostDumps int    // dumps that one host may store
}

// Room is the space of a store that dumps may use: the free space beyond the reserve. It has an Account for each host.
type Room struct {
	Limits
	store storage.Store
	log   *slog.Logger

	mu       sync.Mutex
	accounts map[string]*Account
	staged   uint64            // staged bytes of all hosts
	low      map[string]uint64 // bytes of the reserve that each host has taken since the reserve was last all free
}

// NewRoom returns the room of a store.
func NewRoom(store storage.Store, limits Limits, log *slog.Logger) *Room {
	return &Room{Limits: limits, store: store, log: log, accounts: map[string]*Account{}, low: map[string]uint64{}}
}

// NoRoomError says which space is used up. It matches syscall.ENOSPC.
type NoRoomError struct {
	text string
	Hint string // what an operator can do
}

// Error returns the text for the sender and the log.
func (e *NoRoomError) Error() string { return e.text }

// Is makes the error match syscall.ENOSPC.
func (*NoRoomError) Is(target error) bool { return target == syscall.ENOSPC }

func noRoom(format string, args ...any) *NoRoomError {
	return &NoRoomError{fmt.Sprintf(format, args...), "free some space on the receiver"}
}

// Free returns the free bytes beyond the reserve. bounded is false for a store without a limit.
func (r *Room) Free(ctx context.Context) (free uint64, bounded bool, err error) {
	space, err := r.store.Space(ctx)
	if err != nil || space.Total == 0 {
		return 0, false, err
	}
	return less(space.Free, r.Reserve), true, nil
}

// FreeOrUnbounded is Free for NewQueue. If the free space is unknown, it reports no bound.
func (r *Room) FreeOrUnbounded() (free uint64, bounded bool) {
	free, bounded, err := r.Free(context.Background()) // statfs does not wait; the queue belongs to no session
	if err != nil {
		r.log.Warn("cannot find out how much space is free", "error", err)
	}
	return free, bounded && err == nil
}

// Shortage returns a *NoRoomError for a dump that needs need bytes, beside those reserved for admitted dumps.
func (r *Room) Shortage(reserved, need uint64) error {
	free, _ := r.FreeOrUnbounded()
	return noRoom("no room: %s free beyond the reserve of %s, dumps under way need %s, this one at least %s",
		bytesize.Fine(free), bytesize.Fine(r.Reserve), bytesize.Fine(reserved), bytesize.Fine(need))
}

// less returns a-b, or 0.
func less(a, b uint64) uint64 { return a - min(a, b) }

// keepReserve returns a *NoRoomError if n more bytes would use the reserve. Without a reserve, writes fail when the disk is full.
func (r *Room) keepReserve(ctx context.Context, n uint64) error {
	if r.Reserve == 0 || n == 0 {
		return nil
	}
	space, err := r.store.Space(ctx)
	if err != nil || space.Total == 0 || space.Free >= r.Reserve+n {
		return err
	}
	return noRoom("%s are free, %s are reserved, %s more are needed", bytesize.Fine(space.Free), bytesize.Fine(r.Reserve), bytesize.Fine(n))
}

// maxLog is the maximum size of a log. A sender shortens a longer one.
const maxLog = 64 << 20

// hostPart returns how much of the reserve one host may take: a sixteenth, or a whole log if that is at most a quarter.
func (r *Room) hostPart() uint64 { return max(r.Reserve/16, min(maxLog, r.Reserve/4)) }

// takeReserve takes from the reserve if n bytes of a log need it, and returns how many bytes it took. If the free space is
// unknown, it takes nothing.
func (r *Room) takeReserve(ctx context.Context, host string, n uint64) (taken uint64, err error) {
	space, err := r.store.Space(ctx)
	if err != nil || space.Total == 0 || r.Reserve == 0 {
		return 0, nil //nolint:nilerr // see above
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if space.Free >= r.Reserve {
		clear(r.low) // all of the reserve is free again
	}
	if space.Free >= r.Reserve+n {
		return 0, nil
	}
	if most := r.hostPart(); r.low[host]+n > most {
		return 0, noRoom("%s are free, %s are reserved, of which the logs of one host may take %s; host %s has taken %s",
			bytesize.Fine(space.Free), bytesize.Fine(r.Reserve), bytesize.Fine(most), host, bytesize.Fine(r.low[host]))
	}
	r.low[host] += n
	return n, nil
}

// returnReserve gives back n bytes of the reserve that host took and did not use.
func (r *Room) returnReserve(host string, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.low[host] = less(r.low[host], n)
}

// stagingFree returns how many more bytes the disk lets hosts stage. It halves the space, because staged bytes need it a second
// time when they are copied to a dump.
func (r *Room) stagingFree(ctx context.Context) (free uint64, bounded bool, err error) {
	free, bounded, err = r.Free(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	return less(free, r.staged) / 2, bounded, err
}

// addStaged adds n, which may be negative, to the staged bytes of all hosts.
func (r *Room) addStaged(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.staged = uint64(max(0, int64(r.staged)+n))
}

// CheckCapacity returns a *NoRoomError if a dump that needs need bytes would not fit even into an empty store.
func (r *Room) CheckCapacity(ctx context.Context, host string, need uint64) error {
	space, err := r.store.Space(ctx)
	if err != nil {
		return err
	}
	most, whose := r.HostBytes, "host "+host+" may store"
	if capacity := less(space.Total, r.Reserve); space.Total > 0 && (most == 0 || capacity < most) {
		most, whose = capacity, "the store without its reserve holds"
	}
	if most == 0 || need <= most {
		return nil
	}
	return noRoom("%s %s; the plan needs at least %s", whose, bytesize.Fine(most), bytesize.Fine(need))
}

// CheckFits returns an error if a dump of host that needs need bytes would not fit now, beside what is stored. It matches syscall.ENOSPC.
func (r *Room) CheckFits(ctx context.Context, host string, need uint64) error {
	if err := r.CheckCapacity(ctx, host, need); err != nil {
		return err
	}
	free, bounded, err := r.Free(ctx)
	if err != nil {
		return err
	}
	if bounded && free < need {
		return r.Shortage(0, need)
	}
	hold, err := r.Account(host).Hold(ctx, 0, need)
	if err == nil && hold != "" {
		err = noRoom("%s", hold)
	}
	return err
}
