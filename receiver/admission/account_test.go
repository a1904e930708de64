package admission

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/storage"
)

// shelf is a store that counts how often it is asked what a host has.
type shelf struct {
	storage.Store

	mu    sync.Mutex
	free  uint64
	dumps map[string][]uint64 // lengths of the dumps of each host
	asked int
}

func (s *shelf) Space(context.Context) (storage.Space, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return storage.Space{Total: 1 << 40, Free: s.free}, nil
}

func (s *shelf) Usage(_ context.Context, host string) (u storage.Usage, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	for _, n := range s.dumps[host] {
		u.Bytes += n
		u.Dumps++
	}
	return u, nil
}

func roomOn(s *shelf, limits Limits) *Room { return NewRoom(s, limits, slog.New(slog.DiscardHandler)) }

// fresh forgets when the store was asked, as if that were long ago.
func fresh(a *Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.took = 0
}

// refused checks that err is a *NoRoomError, and what it matches.
func refused(t *testing.T, what string, err error) {
	t.Helper()
	var no *NoRoomError
	if !errors.As(err, &no) || no.Hint == "" || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%s: got %v, want a refusal", what, err)
	}
}

func granted(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// TestChargesDoNotAsk charges often, and wants the store asked once, and again when the limit seems to be reached.
func TestChargesDoNotAsk(t *testing.T) {
	ctx := t.Context()
	s := &shelf{free: 1 << 40, dumps: map[string][]uint64{"web1": make([]uint64, 9000)}}
	a := roomOn(s, Limits{HostBytes: 1 << 30, HostDumps: 1 << 20}).Account("web1")
	for range 1000 {
		charge(t, "dump", a)()
		granted(t, "log", a.NewEarly().Charge(ctx, 1))
		granted(t, "pages", a.Charge(ctx, 1))
		granted(t, "file", a.Stage(ctx, 1))
		if hold, err := a.Hold(ctx, 1, 1); hold != "" || err != nil {
			t.Errorf("hold %q, %v", hold, err)
		}
	}
	if s.asked != 1 {
		t.Errorf("asked %d times, want once", s.asked)
	}
	fresh(a)
	refused(t, "too much", a.Charge(ctx, 1<<30))
	if s.asked != 2 {
		t.Errorf("asked %d times, want twice", s.asked)
	}
	a.mu.Lock()
	a.took = 1 << 40 // an answer that took long is not repeated soon
	a.mu.Unlock()
	for range 10 {
		refused(t, "too much", a.Charge(ctx, 1<<30))
	}
	if s.asked != 2 {
		t.Errorf("asked %d times, want twice", s.asked)
	}
}

// TestOneAccountForAll has one host's dumps, files and logs share one limit, in every order, and gives room back.
func TestOneAccountForAll(t *testing.T) {
	ctx := t.Context()
	const limit = 100
	s := &shelf{free: 1 << 40, dumps: map[string][]uint64{}}
	r := roomOn(s, Limits{HostBytes: limit})
	a := r.Account("web1")
	granted(t, "file", a.Stage(ctx, 60))
	granted(t, "pages", a.Charge(ctx, 40))
	s.dumps["web1"] = []uint64{40}
	fresh(a)
	refused(t, "pages beyond what is staged and stored", a.Charge(ctx, 1))
	refused(t, "a file beyond", a.Stage(ctx, 1))
	if hold, err := a.Hold(ctx, 0, 1); hold == "" || err != nil {
		t.Errorf("hold %q, %v", hold, err)
	}
	if free, err := a.StagingFree(ctx); free != 0 || err != nil {
		t.Errorf("%d free, %v", free, err)
	}
	granted(t, "another host", r.Account("web2").Charge(ctx, limit))
	granted(t, "a copy of what is staged", a.ChargeCopy(ctx, 60, 60))
	s.dumps["web1"] = []uint64{40, 60}
	refused(t, "a copy that grows", a.ChargeCopy(ctx, copySlack+1, 60)) // whether the store is asked depends on the time that it took
	fresh(a)
	a.SetStaged(0)
	refused(t, "pages beyond the copy", a.Charge(ctx, 1))
	s.dumps["web1"] = []uint64{60}
	fresh(a)
	granted(t, "pages where a dump was removed", a.Charge(ctx, 40))
}

// TestLogBeyondTheLimit has a host whose limit is used up send logs: one of the largest size gets in, or many small ones that have as
// many bytes.
func TestLogBeyondTheLimit(t *testing.T) {
	ctx := t.Context()
	s := &shelf{free: 1 << 40, dumps: map[string][]uint64{"web1": {100}, "web2": {100}}}
	r := roomOn(s, Limits{HostBytes: 100})
	granted(t, "one", r.Account("web1").NewEarly().Charge(ctx, maxLog))
	refused(t, "two", r.Account("web1").NewEarly().Charge(ctx, 1))
	for range 10 {
		e := r.Account("web2").NewEarly()
		granted(t, "a tenth", e.Charge(ctx, maxLog/10))
		e.Stored(maxLog / 10)
	}
	s.dumps["web2"] = append(s.dumps["web2"], maxLog)
	fresh(r.Account("web2"))
	refused(t, "eleven", r.Account("web2").NewEarly().Charge(ctx, maxLog/10))
}

// TestLogsUnderWayCount keeps logs that the store does not count yet from being forgotten when it is asked.
func TestLogsUnderWayCount(t *testing.T) {
	ctx := t.Context()
	s := &shelf{free: 1 << 40, dumps: map[string][]uint64{}}
	a := roomOn(s, Limits{HostBytes: 1}).Account("web1")
	var under []*Early
	for range 4 {
		e := a.NewEarly()
		granted(t, "a quarter", e.Charge(ctx, maxLog/4))
		under = append(under, e)
		fresh(a)
	}
	refused(t, "a fifth", a.NewEarly().Charge(ctx, 2))
	under[0].Stored(0) // it broke off
	granted(t, "after one broke off", a.NewEarly().Charge(ctx, 2))
}

// TestReserveIsForAllLogs has one host send logs while the disk is below its reserve, until it has had its part. Others have theirs.
func TestReserveIsForAllLogs(t *testing.T) {
	ctx := t.Context()
	const reserve, part = 1 << 30, 64 << 20
	s := &shelf{free: reserve - 1, dumps: map[string][]uint64{}}
	r := roomOn(s, Limits{Reserve: reserve})
	a := r.Account("web1")
	refused(t, "pages", a.Charge(ctx, 1))
	refused(t, "a file", a.Stage(ctx, 1))
	for range 2 { // half of the logs that broke off are not held against it
		e := a.NewEarly()
		granted(t, "a log", e.Charge(ctx, part/2))
		e.Stored(part / 4)
	}
	granted(t, "a log", a.NewEarly().Charge(ctx, part/2))
	refused(t, "one more", a.NewEarly().Charge(ctx, 1))
	refused(t, "a stock client's", a.StageLog(ctx, 1))
	granted(t, "another host's", r.Account("web2").NewEarly().Charge(ctx, part))
	s.free = reserve + 1 // somebody removed dumps
	granted(t, "above the reserve", a.NewEarly().Charge(ctx, 1))
	s.free = reserve - 1
	granted(t, "below it again", a.NewEarly().Charge(ctx, part))
	if small := roomOn(s, Limits{Reserve: 16 << 20}).hostPart(); small != 4<<20 {
		t.Errorf("of a small reserve, a host gets %d", small)
	}
}

// TestDumpsOfAHostAreLimited counts them, and takes more once some are gone.
func TestDumpsOfAHostAreLimited(t *testing.T) {
	ctx := t.Context()
	s := &shelf{free: 1 << 40, dumps: map[string][]uint64{"web1": {1, 1}}}
	r := roomOn(s, Limits{HostDumps: 3})
	a := r.Account("web1")
	made := charge(t, "the third", a)
	full := func(what string) {
		fresh(a)
		_, err := a.ChargeDump(ctx)
		refused(t, what, err)
	}
	full("the fourth, while the third is being made")
	s.dumps["web1"] = []uint64{1, 1, 1}
	made()
	full("the fourth")
	charge(t, "another host's", r.Account("web2"))()
	s.dumps["web1"] = []uint64{1}
	fresh(a)
	charge(t, "after some are gone", a)()
}

// charge counts a dump.
func charge(t *testing.T, what string, a *Account) (made func()) {
	t.Helper()
	made, err := a.ChargeDump(t.Context())
	granted(t, what, err)
	return made
}

// TestAccountConcurrently has many charge at a time: none of the charges is lost.
func TestAccountConcurrently(t *testing.T) {
	s := &shelf{free: 1 << 40, dumps: map[string][]uint64{}}
	r := roomOn(s, Limits{HostBytes: 1 << 30, Reserve: 1 << 20})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				a := r.Account("web1")
				e := a.NewEarly()
				if err := errors.Join(e.Charge(t.Context(), 3), a.Charge(t.Context(), 1), a.Stage(t.Context(), 2)); err != nil {
					t.Error(err)
				}
				e.Stored(2)
				a.Unstage(1)
			}
		})
	}
	wg.Wait()
	if got := r.Account("web1").sum(); got != 8*100*4 {
		t.Errorf("%d bytes are counted, want %d", got, 8*100*4)
	}
	if r.staged != 8*100 {
		t.Errorf("%d are staged", r.staged)
	}
}
