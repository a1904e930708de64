package reports_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/outputtest"
	"github.com/corehaul/corehaul/storage/reports"
	"github.com/corehaul/corehaul/triage/cage"
)

// during runs a program on a store for a time, and returns what it made.
func during(t *testing.T, s *fakeStore, m *fakeMaker, program string, d time.Duration) (string, *outputtest.Buffer) {
	t.Helper()
	m.made, m.at = nil, nil
	log, stop := start(t, &reports.Runner{Store: s, Maker: m, Program: program, Renewals: 60})
	time.Sleep(d)
	stop()
	return m.said(), log
}

// TestOlderVersionsMakeNothing: only a later version makes a report again, so a downgrade keeps what is there, and programs that use one
// store do not take turns.
func TestOlderVersionsMakeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newFakeStore(), &fakeMaker{}
		s.add("a", "0", dumpdir.StateComplete)
		s.add("a", "1", dumpdir.StateArriving)
		for _, tc := range []struct {
			program string
			made    bool
		}{
			{"corehaul v1.9.0", true},
			{"corehaul v1.9.0", false},
			{"corehaul v1.10.0", true},
			{"corehaul v1.9.0", false},
			{"corehaul devel-0123456789ab", false},
			{"corehaul unknown", false},
			{"corehaul v2.0.0-rc1", true},
			{"corehaul v2.0.0", true},
		} {
			if made, _ := during(t, s, m, tc.program, time.Hour); (made != "") != tc.made {
				t.Errorf("%s made %q", tc.program, made)
			}
		}
		s.add("b", "0", dumpdir.StateComplete)
		for i := range 6 {
			if made, _ := during(t, s, m, []string{"corehaul devel-a", "corehaul devel-b"}[i%2], time.Hour); (made != "") != (i == 0) {
				t.Errorf("round %d of two builds without a version: %s", i, made)
			}
		}
	})
}

// TestTriedOnce: a version that could not make a report again does not try any more. A later one does.
func TestTriedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newFakeStore(), &fakeMaker{}
		ref := s.add("a", "0", dumpdir.StateComplete)
		during(t, s, m, "corehaul v1.0.0", time.Hour)
		s.entries[ref].Report.Tried = "corehaul v1.1.0"
		for _, tc := range []struct {
			program string
			made    bool
		}{{"corehaul v1.1.0", false}, {"corehaul v1.0.5", false}, {"corehaul v1.2.0", true}} {
			if made, _ := during(t, s, m, tc.program, time.Hour); (made != "") != tc.made {
				t.Errorf("%s made %q", tc.program, made)
			}
		}
	})
}

// TestNewDumpsComeFirst has 10,000 dumps of 1,000 hosts that lack a report. One that is sealed now waits for one of them, also if its host
// has just had its turn; and a host that sends dumps without end does not keep them waiting for ever.
func TestNewDumpsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newFakeStore(), &fakeMaker{took: func(string, string) time.Duration { return time.Minute }}
		for i := range 10000 {
			s.add(fmt.Sprintf("host%03d", i%1000), fmt.Sprintf("%04d", i), dumpdir.StateComplete)
		}
		r := &reports.Runner{Store: s, Maker: m}
		_, stop := start(t, r)
		time.Sleep(3*time.Minute + time.Second)
		if st := r.Status(); st.Waiting != 9997 {
			t.Errorf("%+v", st)
		}
		host := m.said()[len("dump ") : len("dump ")+len("host000")] // it had the first turn
		s.come(host, "new", dumpdir.StateComplete)
		came := time.Now()
		time.Sleep(2 * time.Minute)
		if at := m.begun(t, "dump "+host+"/new").Sub(came); at > time.Minute {
			t.Errorf("the new dump waited %v", at)
		}
		before := r.Status().Waiting
		for i := range 64 {
			s.come("flood", fmt.Sprint(i), dumpdir.StateComplete)
		}
		time.Sleep(30 * time.Minute)
		stop()
		old := 0
		for _, text := range m.made[5:] {
			if text[:9] == "dump host" {
				old++
			}
		}
		if old < 2 || old > 6 {
			t.Errorf("%d old dumps were read meanwhile, of %d", old, before)
		}
	})
}

// TestStatus counts what waits, what will be tried again and what could not be read.
func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newFakeStore(), &fakeMaker{took: func(string, string) time.Duration { return time.Minute }}
		m.err = func(_, dir string) error {
			switch dir {
			case "a/0":
				return &cage.FailedError{Reason: "it crashed"}
			case "a/1":
				return fmt.Errorf("the disk is gone")
			}
			return nil
		}
		for i := range 5 {
			s.add("a", fmt.Sprint(i), dumpdir.StateComplete)
		}
		for round, want := range []reports.Status{{Waiting: 5}, {Waiting: 1, Failed: 1}} {
			r := &reports.Runner{Store: s, Maker: m}
			if st := r.Status(); st != (reports.Status{}) {
				t.Errorf("before the start: %+v", st)
			}
			_, stop := start(t, r)
			synctest.Wait()
			if st := r.Status(); st != want {
				t.Errorf("round %d: %+v, want %+v", round, st, want)
			}
			time.Sleep(9 * time.Minute)
			if st := r.Status(); st != (reports.Status{Retrying: 1, Failed: 1}) {
				t.Errorf("round %d, at last: %+v", round, st)
			}
			stop()
		}
	})
}
