package reports

import (
	"fmt"
	"testing"
	"time"

	"github.com/corehaul/corehaul/storage"
)

// TestQueue serves hosts with dumps of different cost, and gives them the same time.
func TestQueue(t *testing.T) {
	q := newQueue()
	begin := time.Unix(1e9, 0)
	add := func(host string, n int) {
		for i := range n {
			q.put(storage.Ref{Host: host, ID: fmt.Sprintf("%s%03d", host, i)}, begin.Add(time.Duration(i)*time.Minute))
		}
	}
	cost := map[string]time.Duration{"slow": 100 * time.Second, "fast": time.Second, "late": time.Second}
	next := func() string {
		ref, ok := q.take()
		if !ok {
			return ""
		}
		q.done(ref.Host, cost[ref.Host])
		return ref.ID
	}
	add("slow", 1000)
	if got := next(); got != "slow999" {
		t.Fatalf("first %s: not the newest", got)
	}
	add("fast", 150)
	for i := range 100 {
		if got, want := next(), fmt.Sprintf("fast%03d", 149-i); got != want {
			t.Fatalf("%d: got %s, want %s", i, got, want)
		}
	}
	if a, b := next(), next(); a+b != "slow998"+"fast049" && a+b != "fast049"+"slow998" {
		t.Errorf("after the same time for both: %s, %s", a, b)
	}
	for range 500 { // the one alone for long ...
		next()
	}
	add("late", 3)
	for i := range 3 { // ... does not have to wait for, but has saved up nothing either
		if got, want := next(), fmt.Sprintf("late%03d", 2-i); got != want {
			t.Errorf("a host that comes late: %s, want %s", got, want)
		}
	}
	if got := next(); got[:4] != "slow" {
		t.Errorf("got %s", got)
	}
	if len(q.turns) > 2 || len(q.running) != 0 {
		t.Errorf("remembers %v, %v", q.turns, q.running)
	}
}

// TestQueueAtOnce takes several dumps before the first is done: each of another host.
func TestQueueAtOnce(t *testing.T) {
	q := newQueue()
	for i, ref := range []storage.Ref{{Host: "a", ID: "1"}, {Host: "a", ID: "2"}, {Host: "b", ID: "3"}, {Host: "c", ID: "4"}} {
		q.put(ref, time.Unix(int64(-i), 0))
	}
	q.put(storage.Ref{Host: "a", ID: "1"}, time.Unix(5, 0))
	got := ""
	for range 5 {
		ref, _ := q.take()
		got += ref.ID
	}
	if got != "1342" {
		t.Errorf("got %s", got)
	}
}
