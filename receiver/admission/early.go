package admission

import "context"

// Early is what one session writes before it has been admitted: a log and a plan. It may take from the reserve, and from slack beyond the
// limit of its host: the log of the newest crash is worth more than a page. Its methods may be called from one
// goroutine at a time.
type Early struct {
	a            *Account
	bytes, taken uint64 // charged; of these, from the reserve
}

// NewEarly returns an Early without charges.
func (a *Account) NewEarly() *Early { return &Early{a: a} }

// Charge counts n bytes that are about to be written. It returns a *NoRoomError when the host has taken its part of the reserve, or
// more than a log beyond its limit.
func (e *Early) Charge(ctx context.Context, n uint64) error {
	taken, err := e.a.room.takeReserve(ctx, e.a.host, n)
	if err != nil {
		return err
	}
	e.a.mu.Lock()
	defer e.a.mu.Unlock()
	if err := e.a.check(ctx, n, maxLog); err != nil {
		e.a.room.returnReserve(e.a.host, taken)
		return err
	}
	e.a.early += n
	e.bytes, e.taken = e.bytes+n, e.taken+taken
	return nil
}

// Stored ends all charges: n bytes more are stored now than before them. The rest is given back.
func (e *Early) Stored(n uint64) {
	e.a.mu.Lock()
	defer e.a.mu.Unlock()
	n = min(n, e.bytes)
	e.a.early -= e.bytes
	e.a.stored += n
	e.a.room.returnReserve(e.a.host, min(e.taken, e.bytes-n))
	e.bytes, e.taken = 0, 0
}
