package admission

import "context"

// Early has the charges of one session before it is admitted, for a log and a plan. They may take from the reserve, and from slack
// beyond the limit of the host, because the log of the newest crash is worth more than a page. Early is not safe for
// concurrent use.
type Early struct {
	a            *Account
	bytes, taken uint64 // charged bytes; those of them from the reserve
}

// NewEarly returns an Early without charges.
func (a *Account) NewEarly() *Early { return &Early{a: a} }

// Charge counts n bytes before they are written. It returns a *NoRoomError if they would exceed the host's part of the reserve, or
// its limit by more than a log.
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

// Stored ends all charges. It counts n of their bytes as stored and gives back the rest.
func (e *Early) Stored(n uint64) {
	e.a.mu.Lock()
	defer e.a.mu.Unlock()
	n = min(n, e.bytes)
	e.a.early -= e.bytes
	e.a.stored += n
	e.a.room.returnReserve(e.a.host, min(e.taken, e.bytes-n))
	e.bytes, e.taken = 0, 0
}
