package admission

import (
	"sync"
	"testing"
)

func TestQueueIsFirstComeFirstServed(t *testing.T) {
	q := NewQueue(2, 0, boundless)
	var tickets []*Ticket
	for range 5 {
		tickets = append(tickets, q.Join("web1", ""))
	}
	if got := places(tickets); got != [5]int{0, 0, 1, 2, 3} {
		t.Fatalf("places %v", got)
	}
	tickets[3].Leave() // gave up waiting
	if got := places(tickets); got[2] != 1 || got[4] != 2 {
		t.Errorf("after one gave up: places %v", got)
	}
	select {
	case <-tickets[4].Changed():
	default:
		t.Error("the last one was not told that it moved up")
	}
	tickets[0].Leave()
	tickets[0].Leave() // twice is once
	if !isAdmitted(tickets[2]) || isAdmitted(tickets[4]) {
		t.Error("a free slot did not go to the first place alone")
	}
	late := q.Join("web1", "")
	tickets[1].Leave()
	if !isAdmitted(tickets[4]) || isAdmitted(late) {
		t.Error("one that came later overtook")
	}
}

func places(tickets []*Ticket) (p [5]int) {
	for i, t := range tickets {
		p[i], _ = t.Position()
	}
	return p
}

func isAdmitted(t *Ticket) bool {
	place, _ := t.Position()
	return place == 0
}

// boundless is a store without a limit.
func boundless() (uint64, bool) { return 0, false }

// TestQueueNeverAdmitsTooMany has many sessions come and go at once.
func TestQueueNeverAdmitsTooMany(t *testing.T) {
	const slots, sessions = 3, 100
	q := NewQueue(slots, 0, boundless)
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
			tk := q.Join("web1", "")
			defer tk.Leave()
			if i%7 == 0 {
				return // gives up at once, let in or not
			}
			for !isAdmitted(tk) {
				<-tk.Changed()
			}
			count(1)
			count(-1)
		})
	}
	wg.Wait()
	if most > slots || q.slots != slots || q.Waiting() != 0 {
		t.Errorf("%d were in at a time, %d slots are free and %d wait; want at most %d, %d and 0", most, q.slots, q.Waiting(), slots, slots)
	}
}

// TestQueueHandsOutRoomInOrder has small dumps pass a large one that waits for room,
// until that has been passed too often.
func TestQueueHandsOutRoomInOrder(t *testing.T) {
	free := uint64(100)
	q := NewQueue(100, 0, func() (uint64, bool) { return free, true })
	none := func() uint64 { return 0 }
	large := q.Join("big", "")
	large.RequestRoom(1000, "", none)
	if place, why := large.Position(); place != 1 || why != ObstacleRoom {
		t.Fatalf("place %d, obstacle %d, want the first place, without room", place, why)
	}
	for i := range maxOvertaken {
		small := q.Join("web1", "")
		small.RequestRoom(10, "", none)
		if !isAdmitted(small) {
			t.Fatalf("small dump %d does not pass", i)
		}
	}
	late := q.Join("web1", "")
	if !isAdmitted(late) {
		t.Error("one whose plan is not known is held up")
	}
	late.RequestRoom(10, "", none)
	if place, why := late.Position(); place != 2 || why != ObstacleReserved {
		t.Errorf("place %d, obstacle %d, want room kept for the large one", place, why)
	}
	free = 1000
	q.Review(0)
	if !isAdmitted(large) || isAdmitted(late) {
		t.Error("the large one is not in, or the room was given away twice")
	}
	large.Leave()
	if !isAdmitted(late) {
		t.Error("nobody is let in after it")
	}
}

// TestQueueCountsWhatOthersStillNeed keeps two plans apart that fit alone.
func TestQueueCountsWhatOthersStillNeed(t *testing.T) {
	q := NewQueue(8, 0, func() (uint64, bool) { return 100, true })
	left := uint64(80)
	first, second := q.Join("a", ""), q.Join("b", "")
	first.RequestRoom(80, "", func() uint64 { return left })
	second.RequestRoom(30, "", func() uint64 { return 30 })
	if !isAdmitted(first) || isAdmitted(second) {
		t.Fatal("both are in, or the first one is not")
	}
	left = 60 // it has brought some
	q.Review(0)
	if !isAdmitted(second) || q.Reserved("", nil) != 90 || q.Reserved("b", nil) != 30 {
		t.Errorf("the second is not in, or %d bytes are reserved", q.Reserved("", nil))
	}
}
