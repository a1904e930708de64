package kdumpclients

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRun has several hosts send at the same time, while the service stops and starts again under them.
func TestRun(t *testing.T) {
	want, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	var run, send sync.WaitGroup
	run.Go(func() {
		// Each Run takes up what the last one left, and has twice its time: on the slowest machine one is long enough.
		for part := 100 * time.Millisecond; ctx.Err() == nil; part *= 2 {
			part, stop := context.WithTimeout(ctx, part)
			if err := s.Run(part); err != nil {
				t.Error(err)
			}
			stop()
		}
	})
	for i := range 4 {
		tr := treeOf(t, s, fmt.Sprint("whole", i))
		send.Go(func() { redhat(t, tr, pack(t, b, wraps["gzip"])) })
		cut := treeOf(t, s, fmt.Sprint("cut", i))
		send.Go(func() { put(t, cut, "/vmcore", b[:len(b)-20-i], 2000+i).Abort(nil) })
	}
	send.Wait()
	age(s)
	waitSealed(t, s, map[dumpdir.State]int{dumpdir.StateComplete: 4, dumpdir.StatePartial: 4})
	cancel()
	run.Wait()
	for i := range 4 {
		e := onlyOf(t, s, fmt.Sprint("whole", i))
		if n := samePages(t, check(t, s, e), want); n != count(t, want) {
			t.Errorf("%d pages", n)
		}
		samePages(t, check(t, s, onlyOf(t, s, fmt.Sprint("cut", i))), want)
	}
}

// waitSealed waits until there are so many dumps of each state and no others.
func waitSealed(t *testing.T, s *Service, want map[dumpdir.State]int) {
	t.Helper()
	until(t, fmt.Sprint("the dumps are ", want), func() bool {
		list, err := s.cfg.Store.List(t.Context(), storage.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		have := map[dumpdir.State]int{}
		for _, e := range list {
			have[e.Manifest.State]++
		}
		return fmt.Sprint(have) == fmt.Sprint(want)
	})
}
