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

// TestQueueHandsOutRoomInOrder has small dumps pass a large one that waits for room,
// until that has been passed too often.
func TestQueueHandsOutRoomInOrder(t *testing.T) {
	free := uint64(100)
	q := newQueue(100, 0, func() (uint64, bool) { return free, true })
	none := func() uint64 { return 0 }
	large := q.join("big", "")
	large.ask(1000, "", none)
	if place, why := large.position(); place != 1 || why != obstacleRoom {
		t.Fatalf("place %d, obstacle %d, want the first in line, without room", place, why)
	}
	for i := range maxPassed {
		small := q.join("web1", "")
		small.ask(10, "", none)
		if !isIn(small) {
			t.Fatalf("small dump %d does not pass", i)
		}
	}
	late := q.join("web1", "")
	if !isIn(late) {
		t.Error("one whose plan is not known is held up")
	}
	late.ask(10, "", none)
	if place, why := late.position(); place != 2 || why != obstacleKept {
		t.Errorf("place %d, obstacle %d, want room kept for the large one", place, why)
	}
	free = 1000
	q.review(0)
	if !isIn(large) || isIn(late) {
		t.Error("the large one is not in, or the room was given away twice")
	}
	large.leave()
	if !isIn(late) {
		t.Error("nobody is let in after it")
	}
}

// TestQueueCountsWhatOthersStillNeed keeps two plans apart that fit alone.
func TestQueueCountsWhatOthersStillNeed(t *testing.T) {
	q := newQueue(8, 0, func() (uint64, bool) { return 100, true })
	left := uint64(80)
	first, second := q.join("a", ""), q.join("b", "")
	first.ask(80, "", func() uint64 { return left })
	second.ask(30, "", func() uint64 { return 30 })
	if !isIn(first) || isIn(second) {
		t.Fatal("both are in, or the first one is not")
	}
	left = 60 // it has brought some
	q.review(0)
	if !isIn(second) || q.reserved("", nil) != 90 || q.reserved("b", nil) != 30 {
		t.Errorf("the second is not in, or %d bytes are reserved", q.reserved("", nil))
	}
}
