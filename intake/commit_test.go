package intake

import (
	"testing"
	"time"
)

// TestLastCommit: what is left at the end is committed, unless the seal is going to do it. What came before is committed in any case.
func TestLastCommit(t *testing.T) {
	t.Parallel()
	for last, want := range map[bool]int{true: 2, false: 1} {
		c := newCommitter(10, time.Hour, last)
		done, committed := make(chan error), make(chan struct{}, 2)
		go func() { done <- c.Run(func() error { committed <- struct{}{}; return nil }) }()
		c.Note(10)
		<-committed
		c.Note(1)
		c.End()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if n := 1 + len(committed); n != want {
			t.Errorf("last %v: %d commits, want %d", last, n, want)
		}
	}
}
