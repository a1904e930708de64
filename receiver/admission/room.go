package admission

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/storage"
)

// Room is the space of a store that dumps may take: what is free beyond the reserve, and each host's share.
type Room struct {
	store     storage.Store
	reserve   uint64
	hostLimit uint64
	log       *slog.Logger
}

// NewRoom returns the room of a store in which dumps must leave reserve bytes free, and one host may have
// hostLimit bytes stored; 0 is no limit.
func NewRoom(store storage.Store, reserve, hostLimit uint64, log *slog.Logger) *Room {
	return &Room{store: store, reserve: reserve, hostLimit: hostLimit, log: log}
}

// NoRoomError says in words what there is too little of.
type NoRoomError struct{ text string }

// Error is for the sender and the log.
func (e *NoRoomError) Error() string { return e.text }

func noRoom(format string, args ...any) error { return &NoRoomError{fmt.Sprintf(format, args...)} }

// Free returns the bytes that are free beyond the reserve; bounded is false for a store without a limit.
func (r *Room) Free(ctx context.Context) (free uint64, bounded bool, err error) {
	space, err := r.store.Space(ctx)
	if err != nil || space.Total == 0 {
		return 0, false, err
	}
	return space.Free - min(space.Free, r.reserve), true, nil
}

// FreeOrUnbounded is Free for NewQueue. A disk that does not tell keeps nobody away.
func (r *Room) FreeOrUnbounded() (free uint64, bounded bool) {
	free, bounded, err := r.Free(context.Background()) // statfs does not wait; the queue belongs to no session
	if err != nil {
		r.log.Warn("cannot find out how much space is free", "error", err)
	}
	return free, bounded && err == nil
}

// Shortage returns a *NoRoomError that says why a dump that needs so many bytes has no room beside those that are reserved for dumps under way.
func (r *Room) Shortage(reserved, need uint64) error {
	free, _ := r.FreeOrUnbounded()
	return noRoom("no room: %s free beyond the reserve of %s, dumps under way need %s, this one at least %s",
		bytesize.Fine(free), bytesize.Fine(r.reserve), bytesize.Fine(reserved), bytesize.Fine(need))
}

// CheckReserve returns a *NoRoomError when need bytes more would eat into the reserve, which is for the logs of others.
// Without a reserve the disk itself says when it is full.
func (r *Room) CheckReserve(ctx context.Context, need uint64) error {
	if r.reserve == 0 {
		return nil
	}
	space, err := r.store.Space(ctx)
	if err != nil || space.Total == 0 || space.Free >= r.reserve+need {
		return err
	}
	return noRoom("%s are free, %s are reserved, the next chunk needs %s", bytesize.Fine(space.Free), bytesize.Fine(r.reserve), bytesize.Fine(need))
}

// CheckCapacity returns a *NoRoomError when a dump that needs so many bytes could not even be stored alone.
func (r *Room) CheckCapacity(ctx context.Context, host string, need uint64) error {
	space, err := r.store.Space(ctx)
	if err != nil {
		return err
	}
	most, whose := r.hostLimit, "host "+host+" may store"
	if capacity := space.Total - min(space.Total, r.reserve); space.Total > 0 && (most == 0 || capacity < most) {
		most, whose = capacity, "the store without its reserve holds"
	}
	if most == 0 || need <= most {
		return nil
	}
	return noRoom("%s %s; the plan needs at least %s", whose, bytesize.Fine(most), bytesize.Fine(need))
}

// HostHold says why host may not store need bytes more now, beside those reserved for its dumps under way; empty if it may.
func (r *Room) HostHold(ctx context.Context, host string, reserved, need uint64) (hold string, err error) {
	if r.hostLimit == 0 {
		return "", nil
	}
	has, err := r.HostBytes(ctx, host)
	if has += reserved; err != nil || has+need <= r.hostLimit {
		return "", err
	}
	return fmt.Sprintf("host %s may store %s and has stored %s; this dump needs at least %s", host, bytesize.Fine(r.hostLimit), bytesize.Fine(has), bytesize.Fine(need)), nil
}

// CheckHost returns a *NoRoomError when more is stored of host than its share. It looks at every one of its dumps.
func (r *Room) CheckHost(ctx context.Context, host string) error {
	if r.hostLimit == 0 {
		return nil
	}
	has, err := r.HostBytes(ctx, host)
	if err != nil || has <= r.hostLimit {
		return err
	}
	return noRoom("host %s may store %s and has stored %s", host, bytesize.Fine(r.hostLimit), bytesize.Fine(has))
}

// HostBytes returns what is stored of a host, arriving dumps and challengers included.
func (r *Room) HostBytes(ctx context.Context, host string) (uint64, error) {
	entries, err := r.store.List(ctx, storage.Filter{Host: host})
	if err != nil {
		return 0, fmt.Errorf("list the dumps of the host: %w", err)
	}
	sum := uint64(0)
	for i := range entries {
		sum += entries[i].Bytes()
	}
	challengers, err := r.challengerBytes(ctx, host)
	return sum + challengers, err
}

// challengerBytes returns what is stored of a host's challengers.
func (r *Room) challengerBytes(ctx context.Context, host string) (sum uint64, err error) {
	refs, err := r.store.Challengers().List(ctx)
	if err != nil {
		return 0, fmt.Errorf("list challengers: %w", err)
	}
	for _, ref := range refs {
		if ref.Host != host {
			continue
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		d, err := r.store.Challengers().Open(ctx, ref)
		if err != nil {
			continue // gone meanwhile, or damaged: it cannot grow
		}
		sum += storedBytes(d.Manifest())
		if err := d.Close(); err != nil {
			return 0, err
		}
	}
	return sum, nil
}

func storedBytes(m *dumpdir.Manifest) uint64 {
	return uint64(max(0, m.Bytes.VMCore)) + uint64(max(0, m.Bytes.Log))
}
