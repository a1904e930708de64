package admission

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/corehaul/corehaul/internal/bytesize"
)

// Account counts the bytes of one host, stored and staged. Every writer charges the account before it writes. Nothing subtracts
// what was removed, replaced or not written, so the sum is an upper bound. The account asks the store, which looks at all dumps of the
// host, only if the sum reaches a limit. So the cost of a charge does not depend on the number of dumps.
type Account struct {
	room *Room
	host string

	mu     sync.Mutex    // held while the store is asked
	asked  time.Time     // when the store last answered; zero: never
	took   time.Duration // how long the answer took
	stored uint64        // bytes of dumps
	dumps  int           // with those being made
	making int           // dumps that may not be in the store yet
	early  uint64        // bytes charged by Early
	staged uint64        // bytes of staged files
}

// Account returns the account of a host.
func (r *Room) Account(host string) *Account {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.accounts[host]
	if a == nil {
		a = &Account{room: r, host: host}
		r.accounts[host] = a
	}
	return a
}

// askingShare bounds the time spent on questions to the store to one part in askingShare.
const askingShare = 20

// sum returns all counted bytes. mu is held.
func (a *Account) sum() uint64 { return a.stored + a.early + a.staged }

// refresh asks the store for the usage of the host, unless it was asked recently. mu is held.
func (a *Account) refresh(ctx context.Context) error {
	if !a.asked.IsZero() && time.Since(a.asked) < askingShare*a.took {
		return nil
	}
	begin := time.Now()
	usage, err := a.room.store.Usage(ctx, a.host)
	if err != nil {
		return fmt.Errorf("find out what is stored of the host: %w", err)
	}
	a.stored, a.dumps, a.asked, a.took = usage.Bytes, usage.Dumps+a.making, time.Now(), time.Since(begin)
	return nil
}

// exceeds reports whether n more bytes would exceed limit, and returns the bytes counted now. mu is held.
func (a *Account) exceeds(ctx context.Context, limit, n uint64) (has uint64, over bool, err error) {
	over = a.sum()+n > limit
	if a.asked.IsZero() || over {
		err = a.refresh(ctx)
	}
	return a.sum(), a.sum()+n > limit, err
}

// check returns a *NoRoomError if n more bytes would exceed the limit of the host by more than slack. mu is held.
func (a *Account) check(ctx context.Context, n, slack uint64) error {
	limit := a.room.HostBytes
	if limit == 0 {
		return nil
	}
	has, over, err := a.exceeds(ctx, limit+slack, n)
	if err != nil || !over {
		return err
	}
	no := noRoom("host %s may store %s and has stored %s", a.host, bytesize.Fine(limit), bytesize.Fine(has))
	no.Hint = "on the receiver, remove dumps of this host ('corehaul rm', 'corehaul prune') or raise max_host_bytes"
	return no
}

// Charge counts n bytes of a dump before they are written. It returns a *NoRoomError if they would use the reserve or exceed the
// limit of the host.
func (a *Account) Charge(ctx context.Context, n uint64) error { return a.charge(ctx, n, 0) }

// charge is Charge with slack beyond the limit of the host.
func (a *Account) charge(ctx context.Context, n, slack uint64) error {
	if err := a.room.keepReserve(ctx, n); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.check(ctx, n, slack); err != nil {
		return err
	}
	a.stored += n
	return nil
}

// copySlack is how many bytes larger than a staged file its dump may be: headers, bitmaps, page descriptors, and pages that are
// stored whole where the file has a part.
const copySlack = 16 << 20

// ChargeCopy is Charge for the copy of a staged file of size bytes, which is deleted once the copy is a dump. So until then the copy may
// exceed the limit of the host by that size, and by copySlack.
func (a *Account) ChargeCopy(ctx context.Context, n, size uint64) error {
	return a.charge(ctx, n, size+copySlack)
}

// ChargeLogCopy counts the copy of a staged log. StageLog has decided about it: a log that came is stored, also if the disk is low.
func (a *Account) ChargeLogCopy(n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored += n
}

// ChargeDump counts a dump before it is created. The caller calls made once it is in the store, or is not created. It returns a
// *NoRoomError if the host has reached its limit of dumps.
func (a *Account) ChargeDump(ctx context.Context) (made func(), err error) {
	most := a.room.HostDumps
	if most == 0 {
		return func() {}, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked.IsZero() || a.dumps >= most {
		if err := a.refresh(ctx); err != nil {
			return nil, err
		}
	}
	if a.dumps >= most {
		no := noRoom("host %s has %d dumps and may have %d (max_host_dumps)", a.host, a.dumps, most)
		no.Hint = "on the receiver, remove some ('corehaul prune --max-per-host N', 'corehaul rm') or raise max_host_dumps"
		return nil, no
	}
	a.dumps++
	a.making++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.making--
	}, nil
}

// Hold returns why the host may not store need bytes beside those reserved for its admitted dumps. hold is empty if it may.
func (a *Account) Hold(ctx context.Context, reserved, need uint64) (hold string, err error) {
	limit := a.room.HostBytes
	if limit == 0 {
		return "", nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	has, over, err := a.exceeds(ctx, limit, reserved+need)
	if err != nil || !over {
		return "", err
	}
	return fmt.Sprintf("host %s may store %s and has stored %s; this dump needs at least %s",
		a.host, bytesize.Fine(limit), bytesize.Fine(has+reserved), bytesize.Fine(need)), nil
}

// Stage counts n bytes before they are staged. They become a dump later.
func (a *Account) Stage(ctx context.Context, n uint64) error {
	free, bounded, err := a.room.stagingFree(ctx)
	switch {
	case err != nil:
		return err
	case bounded && n > free:
		return noRoom("%s may be staged, %s more are needed", bytesize.Fine(free), bytesize.Fine(n))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.check(ctx, n, 0); err != nil {
		return err
	}
	a.setStaged(a.staged + n)
	return nil
}

// StageLog is Stage for a log. It may take from the reserve and the slack as Early does.
func (a *Account) StageLog(ctx context.Context, n uint64) error {
	taken, err := a.room.takeReserve(ctx, a.host, n)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.check(ctx, n, maxLog); err != nil {
		a.room.returnReserve(a.host, taken)
		return err
	}
	a.setStaged(a.staged + n)
	return nil
}

// Unstage takes back n bytes that Stage counted.
func (a *Account) Unstage(n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setStaged(less(a.staged, n))
}

// SetStaged sets the number of staged bytes.
func (a *Account) SetStaged(n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setStaged(n)
}

// setStaged is SetStaged with mu held.
func (a *Account) setStaged(n uint64) {
	a.room.addStaged(int64(n) - int64(a.staged))
	a.staged = n
}

// Staged returns the number of bytes counted as staged.
func (a *Account) Staged() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.staged
}

// StagingFree returns how many bytes the host may still stage.
func (a *Account) StagingFree(ctx context.Context) (uint64, error) {
	free, bounded, err := a.room.stagingFree(ctx)
	if !bounded {
		free = math.MaxUint64
	}
	limit := a.room.HostBytes
	if err != nil || limit == 0 {
		return free, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	err = a.refresh(ctx)
	return min(free, less(limit, a.sum())), err
}
