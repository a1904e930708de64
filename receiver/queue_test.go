package receiver

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

func TestQueueIsFirstComeFirstServed(t *testing.T) {
	q := newQueue(2)
	var tickets []*ticket
	for range 5 {
		tickets = append(tickets, q.join())
	}
	if got := places(tickets); got != [5]int{0, 0, 1, 2, 3} {
		t.Fatalf("places %v", got)
	}
	tickets[3].leave() // gave up waiting
	if got := places(tickets); got[2] != 1 || got[4] != 2 {
		t.Errorf("after one gave up: places %v", got)
	}
	select {
	case <-tickets[4].moved:
	default:
		t.Error("the last one was not told that it moved up")
	}
	tickets[0].leave()
	tickets[0].leave() // twice is once
	if !isIn(tickets[2]) || isIn(tickets[4]) {
		t.Error("a free slot did not go to the first in line alone")
	}
	late := q.join()
	tickets[1].leave()
	if !isIn(tickets[4]) || isIn(late) {
		t.Error("one that came later overtook")
	}
}

func places(tickets []*ticket) (p [5]int) {
	for i, t := range tickets {
		p[i] = t.position()
	}
	return p
}

func isIn(t *ticket) bool {
	select {
	case <-t.ready:
		return true
	default:
		return false
	}
}

// TestQueueNeverLetsTooManyIn has many sessions come and go at once.
func TestQueueNeverLetsTooManyIn(t *testing.T) {
	const slots, sessions = 3, 100
	q := newQueue(slots)
	var mu sync.Mutex
	in, most := 0, 0
	count := func(d int) {
		mu.Lock()
		defer mu.Unlock()
		in += d
		most = max(most, in)
	}
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			tk := q.join()
			defer tk.leave()
			if i%7 == 0 {
				return // gives up at once, let in or not
			}
			<-tk.ready
			count(1)
			count(-1)
		})
	}
	wg.Wait()
	if most > slots || q.free != slots || q.length() != 0 {
		t.Errorf("%d were in at a time, %d slots are free and %d wait; want at most %d, %d and 0", most, q.free, q.length(), slots, slots)
	}
}

func TestByteGate(t *testing.T) {
	g := newByteGate(10)
	if err := g.take(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	got := make(chan error)
	go func() { got <- g.take(ctx, 4) }()
	select {
	case err := <-got:
		t.Fatalf("took 4 of 3 bytes: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	cancel(cause)
	if err := <-got; !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
	go func() { got <- g.take(t.Context(), 100) }() // counts as 10
	g.give(7)
	if err := <-got; err != nil {
		t.Error(err)
	}
	g.give(100)
	if g.free != 10 {
		t.Errorf("%d bytes are free, want 10", g.free)
	}
}

func TestSplitStaysWithinMemory(t *testing.T) {
	for _, tc := range []struct {
		memory uint64
		active int
		slots  int
	}{
		{MinMemory, 8, 3},
		{256 << 20, 8, 8},
		{256 << 20, 200, 30},
		{64 << 30, 8, 8},
	} {
		cfg := Config{Memory: tc.memory, MaxActive: tc.active}
		s := cfg.split()
		each := s.window + frameBytes + int64(s.workers)*converterBytes + writerBytes
		if total := s.hello + int64(s.slots)*each; total > int64(tc.memory) {
			t.Errorf("%d bytes for %d sessions: %d are handed out", tc.memory, s.slots, total)
		}
		if s.window < 2*frameBytes || s.workers < 1 {
			t.Errorf("%d bytes: window %d, workers %d", tc.memory, s.window, s.workers)
		}
		if s.slots > tc.active || s.slots < min(tc.active, tc.slots/2) {
			t.Errorf("%d bytes: %d slots, want about %d", tc.memory, s.slots, tc.slots)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	store := fakeStore{}
	for name, cfg := range map[string]Config{
		"no store":      {},
		"no memory":     {Store: store, Memory: 1 << 20},
		"negative time": {Store: store, ResumeGrace: -1},
		"lzo":           {Store: store, Codec: 2},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(Config{Store: store}); err != nil {
		t.Errorf("defaults: %v", err)
	}
}
