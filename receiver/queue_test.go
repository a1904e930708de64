package receiver

import (
	"sync"
	"testing"
)

func TestQueueIsFirstComeFirstServed(t *testing.T) {
	q := newQueue(2, 0, boundless)
	var tickets []*ticket
	for range 5 {
		tickets = append(tickets, q.join("web1", ""))
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
	late := q.join("web1", "")
	tickets[1].leave()
	if !isIn(tickets[4]) || isIn(late) {
		t.Error("one that came later overtook")
	}
}

func places(tickets []*ticket) (p [5]int) {
	for i, t := range tickets {
		p[i], _ = t.position()
	}
	return p
}

func isIn(t *ticket) bool {
	place, _ := t.position()
	return place == 0
}

// boundless is a store without a limit.
func boundless() (uint64, bool) { return 0, false }

// TestQueueNeverLetsTooManyIn has many sessions come and go at once.
func TestQueueNeverLetsTooManyIn(t *testing.T) {
	const slots, sessions = 3, 100
	q := newQueue(slots, 0, boundless)
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
			tk := q.join("web1", "")
			defer tk.leave()
			if i%7 == 0 {
				return // gives up at once, let in or not
			}
			for !isIn(tk) {
				<-tk.moved
			}
			count(1)
			count(-1)
		})
	}
	wg.Wait()
	if most > slots || q.free != slots || q.length() != 0 {
		t.Errorf("%d were in at a time, %d slots are free and %d wait; want at most %d, %d and 0", most, q.free, q.length(), slots, slots)
	}
}
