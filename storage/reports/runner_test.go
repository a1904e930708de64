package reports_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/reports"
	"github.com/corehaul/corehaul/triage"
	"github.com/corehaul/corehaul/triage/cage"
)

// TestLogsDoNotWait has a log stored, then another dump sealed, while a dump takes minutes: the log has its report at once, of the
// dumps one is read at a time, and a sealed dump gets a report of its own in the place of its log's.
func TestLogsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newFakeStore(), &fakeMaker{took: func(what, _ string) time.Duration {
			return map[string]time.Duration{"log": time.Second, "dump": time.Minute}[what]
		}}
		s.add("a", "0", dumpdir.StateComplete)
		_, stop := start(t, &reports.Runner{Store: s, Maker: m})
		time.Sleep(10 * time.Second)
		s.come("b", "1", dumpdir.StateArriving)
		s.come("b", "1", dumpdir.StateArriving) // with its plan
		time.Sleep(2 * time.Second)
		if e, _ := s.Find(t.Context(), "b/1"); e.Title != "log b/1" {
			t.Errorf("the title is %q", e.Title)
		}
		s.come("b", "1", dumpdir.StatePartial)
		s.come("c", "2", dumpdir.StateLogOnly)
		time.Sleep(5 * time.Minute)
		stop()
		if got := m.said(); got != "dump a/0, log b/1, dump c/2, dump b/1" && got != "dump a/0, log b/1, dump b/1, dump c/2" {
			t.Errorf("made %s", got)
		}
		if m.most != 1 {
			t.Errorf("%d dumps were read at the same time", m.most)
		}
		if e, _ := s.Find(t.Context(), "b/1"); e.Title != "dump b/1" || e.Report.Of != dumpdir.ReportOfDump {
			t.Errorf("the title is %q, of the %s", e.Title, e.Report.Of)
		}
	})
}

// TestOneHostDoesNotDelayOthers has a host with 1,000 dumps, each of which takes a minute and fails. The dumps of other hosts, those that were
// there and those that come, wait for one of them at most.
func TestOneHostDoesNotDelayOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(dir string) bool { return dir[:3] == "bad" }
		s, m := newFakeStore(), &fakeMaker{
			took: func(what, dir string) time.Duration {
				if what == "dump" && slow(dir) {
					return time.Minute
				}
				return time.Second
			},
			err: func(what, dir string) error {
				if what == "dump" && slow(dir) {
					return &cage.FailedError{Reason: "it took too long"}
				}
				return nil
			},
		}
		for i := range 20 {
			s.add("good", fmt.Sprintf("%04d", i), dumpdir.StateComplete)
		}
		for i := range 1000 {
			s.add("bad", fmt.Sprintf("%04d", i), dumpdir.StateComplete)
		}
		begin := time.Now()
		_, stop := start(t, &reports.Runner{Store: s, Maker: m})
		time.Sleep(90 * time.Minute)
		for i := range 20 {
			if at := m.begun(t, "dump "+dir("good", i)).Sub(begin); at > 2*time.Minute {
				t.Errorf("dump %d of the good host waited %v", i, at)
			}
		}
		came := time.Now()
		s.come("new", "0001", dumpdir.StateComplete)
		time.Sleep(3 * time.Minute)
		if at := m.begun(t, "dump new/0001").Sub(came); at > 61*time.Second {
			t.Errorf("a new host waited %v", at)
		}
		stop()
		if e, _ := s.Find(t.Context(), dir("bad", 0)); e.Title != "log "+dir("bad", 0) {
			t.Errorf("the first dump of the bad host has the title %q, want that of its log", e.Title)
		}
	})
}

// TestFailedOnce: a dump that cannot be read is not tried again by the same version of the program, but by another.
func TestFailedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newFakeStore(), &fakeMaker{err: func(what, _ string) error { return &cage.FailedError{Reason: "no " + what} }}
		s.add("a", "0", dumpdir.StateComplete)
		s.add("a", "1", dumpdir.StateArriving)
		for range 2 {
			log, stop := start(t, &reports.Runner{Store: s, Maker: m, Renewals: 60})
			time.Sleep(time.Hour)
			stop()
			if n := len(log.Lines("level=ERROR")); n != 0 {
				t.Errorf("%d errors", n)
			}
		}
		if got := m.said(); got != "log a/1, dump a/0, log a/0" && got != "dump a/0, log a/1, log a/0" && got != "dump a/0, log a/0, log a/1" {
			t.Errorf("made %s", got)
		}
		if e, _ := s.Find(t.Context(), "a/0"); e.Report == nil || e.Report.Kind != "unknown" || e.Title != "" {
			t.Errorf("stored %+v", e.Report)
		}
		m.err = nil
		_, stop := start(t, &reports.Runner{Store: s, Maker: m, Renewals: 60, Program: "corehaul v2"})
		time.Sleep(time.Hour)
		stop()
		if e, _ := s.Find(t.Context(), "a/0"); e.Title != "dump a/0" {
			t.Errorf("another version: %q", e.Title)
		}
	})
}

// TestRenewals: reports of another version are made again at a bounded rate, after those that are missing, and never those of a
// version whose form is not known.
func TestRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newFakeStore(), &fakeMaker{}
		for i := range 10 {
			s.add("a", fmt.Sprintf("%04d", i), dumpdir.StateComplete)
		}
		_, stop := start(t, &reports.Runner{Store: s, Maker: m})
		time.Sleep(time.Minute)
		stop()
		s.mu.Lock()
		s.entries[storage.Ref{Host: "a", ID: "0003"}].Report.ReportVersion = triage.Version + 1
		s.mu.Unlock()
		s.add("b", "0001", dumpdir.StateComplete)
		for program, want := range map[string]int{"corehaul v1": 0, "corehaul v2": 9} {
			m.made, m.at = nil, nil
			_, stop = start(t, &reports.Runner{Store: s, Maker: m, Program: program, Renewals: 4})
			time.Sleep(12 * time.Minute)
			s.come("c", program[10:], dumpdir.StateComplete)
			time.Sleep(5 * time.Hour)
			stop()
			renewed := 0
			for i, text := range m.made {
				if text[:6] == "dump a" {
					if renewed++; i > 0 && m.made[i-1][:6] == "dump a" && m.at[i].Sub(m.at[i-1]) < 15*time.Minute {
						t.Errorf("%s: two renewals within %v", program, m.at[i].Sub(m.at[i-1]))
					}
				}
			}
			if renewed < want {
				t.Errorf("%s: %d renewed, want %d: %s", program, renewed, want, m.said())
			}
		}
		if e, _ := s.Find(t.Context(), "a/0003"); e.Report.Program != "corehaul v1" {
			t.Errorf("the report of a later version was replaced by %s", e.Report.Program)
		}
		m.made = nil
		_, stop = start(t, &reports.Runner{Store: s, Maker: m, Program: "corehaul v3"})
		time.Sleep(time.Hour)
		stop()
		if len(m.made) != 0 {
			t.Errorf("renewals are off: %s", m.said())
		}
	})
}

// TestFullDisk: while nothing can be stored, there are few lines and few attempts; then all reports are made.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := true
		s, m := newFakeStore(), &fakeMaker{}
		s.failing = func(storage.Ref) error {
			if full {
				return fmt.Errorf("write report.json: %w", syscall.ENOSPC)
			}
			return nil
		}
		for i := range 30 {
			s.add("a", fmt.Sprintf("%04d", i), dumpdir.StateComplete)
		}
		log, stop := start(t, &reports.Runner{Store: s, Maker: m})
		time.Sleep(time.Hour)
		if n := len(log.Lines("level=ERROR")); n == 0 || n > 6 {
			t.Errorf("%d errors in an hour", n)
		}
		if n := m.attempts(); n > 70 {
			t.Errorf("%d attempts in an hour", n)
		}
		s.mu.Lock()
		full = false
		s.mu.Unlock()
		time.Sleep(3 * time.Hour)
		stop()
		if n := len(log.Lines("crash report")); n != 30 {
			t.Errorf("%d reports, want 30", n)
		}
	})
}

// TestNoRoom: a host that has used up its room gets no report and does not hold up another.
func TestNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newFakeStore(), &fakeMaker{}
		charged := map[string]uint64{}
		r := &reports.Runner{Store: s, Maker: m, Charge: func(_ context.Context, host string, n uint64) error {
			if host == "full" {
				return errors.New("no room")
			}
			charged[host] += n
			return nil
		}}
		for i := range 100 {
			s.add("full", fmt.Sprintf("%04d", i), dumpdir.StateComplete)
		}
		begin := time.Now()
		log, stop := start(t, r)
		synctest.Wait()
		s.come("good", "0001", dumpdir.StateComplete)
		time.Sleep(time.Minute)
		stop()
		if at := m.begun(t, "dump good/0001").Sub(begin); at > time.Second || charged["good"] < 100 || len(log.Lines("level=ERROR")) != 1 {
			t.Errorf("began after %v, %d bytes charged, %d errors", at, charged["good"], len(log.Lines("level=ERROR")))
		}
	})
}

// TestLostHints: of more hints than a subscriber is given, the list finds the others.
func TestLostHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newFakeStore(), &fakeMaker{took: func(string, string) time.Duration { return time.Millisecond }}
		_, stop := start(t, &reports.Runner{Store: s, Maker: m})
		synctest.Wait()
		for i := range 500 {
			s.come("a", fmt.Sprintf("%04d", i), dumpdir.StateComplete)
		}
		time.Sleep(11 * time.Minute)
		stop()
		if len(m.made) != 500 || s.lists != 2 {
			t.Errorf("%d of 500 reports, after %d lists", len(m.made), s.lists)
		}
	})
}

// TestChangesMeanwhile: what becomes of a report whose dump is removed, continued or sealed anew while it is made.
func TestChangesMeanwhile(t *testing.T) {
	for _, tc := range []struct {
		name  string
		do    func(s *fakeStore)
		title string
		made  string
	}{
		{"removed", func(s *fakeStore) { s.remove("a", "0") }, "", "dump a/0"},
		{"its sender is back", func(s *fakeStore) { s.come("a", "0", dumpdir.StateArriving) }, "log a/0", "dump a/0, log a/0"},
		{"sealed anew", func(s *fakeStore) { s.come("a", "0", dumpdir.StateComplete) }, "dump a/0", "dump a/0, dump a/0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, m := newFakeStore(), &fakeMaker{took: func(string, string) time.Duration { return time.Minute }}
				s.add("a", "0", dumpdir.StatePartial)
				log, stop := start(t, &reports.Runner{Store: s, Maker: m})
				time.Sleep(30 * time.Second)
				tc.do(s)
				time.Sleep(5 * time.Minute)
				stop()
				if e, _ := s.Find(t.Context(), "a/0"); e.Title != tc.title || m.said() != tc.made || len(log.Lines("level=ERROR")) != 0 {
					t.Errorf("title %q, made %s, %d errors", e.Title, m.said(), len(log.Lines("level=ERROR")))
				}
			})
		})
	}
}

// TestStops ends in the middle of a dump and of a log, at once and without a word.
func TestStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newFakeStore(), &fakeMaker{took: func(string, string) time.Duration { return time.Hour }}
		s.add("a", "0", dumpdir.StateComplete)
		s.add("a", "1", dumpdir.StateArriving)
		log, stop := start(t, &reports.Runner{Store: s, Maker: m})
		time.Sleep(time.Minute)
		before := time.Now()
		stop()
		if took := time.Since(before); took != 0 || len(log.Lines("level")) != 0 || len(m.made) != 2 {
			t.Errorf("ended after %v, with %d lines", took, len(log.Lines("level")))
		}
	})
}
