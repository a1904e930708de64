// Package storagetest tests implementations of storage.Store. It is for tests only.
package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
)

// Run runs the suite. Within one test, open opens the same store each time. It is empty at first. The suite closes what it
// opens.
func Run(t *testing.T, newStore func(t *testing.T) (open func() storage.Store)) {
	t.Helper()
	RunSuite(t, newStore, map[string]func(*testing.T, func() storage.Store){
		"Life":          testLife,
		"Next":          testChallenger,
		"NextBusy":      testChallengerBusy,
		"NextGoes":      testChallengerGoes,
		"CheckWritable": testCheckWritable,
		"Find":          testFind,
		"Filters":       testFilters,
		"Refusals":      testRefusals,
		"Takeover":      testTakeover,
		"Remove":        testRemove,
		"Reindex":       testReindex,
		"Subscribe":     testSubscribe,
		"SameID":        testSameID,
		"Sessions":      testSessions,
		"Pin":           testPin,
		"PinPromoted":   testPinPromoted,
		"Verification":  testVerification,
		"Kept":          testKept,
		"Report":        testReport,
		"ReportOfLog":   testReportOfLog,
		"Promoted":      testPromotedIsTold,
		"Usage":         testUsage,
		"RemoveChanged": testRemoveChanged,
		"Processes":     testProcesses,
		"Take":          testTake,
		"TakeRefuses":   testTakeRefuses,
	})
}

// RunSuite runs tests. newThing makes an empty thing and returns a function that opens it. RunSuite closes what was opened.
func RunSuite[T io.Closer](t *testing.T, newThing func(t *testing.T) (open func() T), tests map[string]func(*testing.T, func() T)) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			open := newThing(t)
			test(t, func() T {
				thing := open()
				t.Cleanup(func() { _ = thing.Close() })
				return thing
			})
		})
	}
}

func testLife(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	if got := list(t, s, storage.Filter{}); len(got) != 0 {
		t.Fatalf("a new store lists %v", refs(got))
	}
	m := machine("node1", id("ab"), day)
	w := begin(t, s, m)
	if got := list(t, s, storage.Filter{}); len(got) != 1 || got[0].State() != dumpdir.StateArriving {
		t.Fatalf("an arriving dump is listed as %+v", got)
	}
	for i := range m.Chunks {
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s, storage.Filter{}); got[0].Manifest.Pages.Present != m.End.Pages {
		t.Errorf("counts of an arriving dump: %+v", got[0].Manifest.Pages)
	}
	if _, err := w.Seal(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []storage.Store{s, open()} {
		got := list(t, s, storage.Filter{})
		if len(got) != 1 || got[0].State() != dumpdir.StateComplete || got[0].Manifest.PanicLine != m.Meta.PanicLine || got[0].Path == "" {
			t.Fatalf("a complete dump is listed as %+v", got)
		}
		checkOpen(t, s, got[0].Ref, m)
	}
	sp, err := s.Space(t.Context())
	if err != nil || sp.Free > sp.Total {
		t.Errorf("space %+v, %v", sp, err)
	}
}

func checkOpen(t *testing.T, s storage.Store, ref storage.Ref, m *dumpdirtest.Machine) {
	t.Helper()
	d, err := s.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	log, err := d.OpenLog()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(log)
	if err = errors.Join(err, log.Close()); err != nil || !bytes.Equal(b, m.Log) {
		t.Errorf("log %q, %v", b, err)
	}
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	if err != nil || !rep.OK() {
		t.Errorf("verify: %+v, %v", rep, err)
	}
}

func testFind(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	for _, m := range []*dumpdirtest.Machine{
		machine("node1", id("abc1"), day), machine("node2", id("abc2"), day), machine("node2", id("abc2")+"ff", day), machine("node2", id("77"), day),
	} {
		Receive(t, s, m, false)
	}
	for _, tc := range []struct{ name, want string }{
		{id("77"), "node2/" + id("77")},
		{"7", "node2/" + id("77")},
		{"abc1", "node1/" + id("abc1")},
		{"node1/a", "node1/" + id("abc1")},
		{id("abc2"), "node2/" + id("abc2")},
		{id("abc2") + "f", "node2/" + id("abc2") + "ff"},
	} {
		if e, err := s.Find(t.Context(), tc.name); err != nil || e.String() != tc.want || e.State() != dumpdir.StateComplete {
			t.Errorf("find %q: %v, %v", tc.name, e.Ref, err)
		}
	}
	for _, name := range []string{"", "8", "node3/7", "node1/7", "node1/", "%", "_", "*", "../node1", strings.Repeat("7", 4000)} {
		if _, err := s.Find(t.Context(), name); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("find %.20q: %v", name, err)
		}
	}
	testFindNamed(t, s)
	_, err := s.Find(t.Context(), "abc")
	amb, ok := errors.AsType[*storage.AmbiguousError](err)
	if !ok || len(amb.Candidates) != 3 || amb.Candidates[0].Host != "node1" {
		t.Errorf("find abc: %v", err)
	}
}

// testFindNamed finds the dumps of testFind as people name them. That of node1 is the newest.
func testFindNamed(t *testing.T, s storage.Store) {
	t.Helper()
	Receive(t, s, machine("node1", id("0bc1"), day.Add(time.Hour)), false)
	Receive(t, s, machine("77", id("5"), day), false)
	dir := day.Format(dumpdir.TimeLayout) + "-"
	for _, tc := range []struct {
		name, want string
		moves      bool
	}{
		{"latest", "node1/" + id("0bc1"), true},
		{"Latest", "node1/" + id("0bc1"), true},
		{"node1", "node1/" + id("0bc1"), true},
		{"NODE1", "node1/" + id("0bc1"), true},
		{"node1/latest", "node1/" + id("0bc1"), true},
		{"node1/abc1", "node1/" + id("abc1"), false},
		{"abc1", "node1/" + id("abc1"), false},
		{dir + id("abc1")[:8], "node1/" + id("abc1"), false},
		{"node1/" + dir + id("abc1")[:8], "node1/" + id("abc1"), false},
		{id("77"), "node2/" + id("77"), false},
	} {
		e, err := storage.FindNamed(t.Context(), s, tc.name)
		if err != nil || e.String() != tc.want || storage.Moves(tc.name, &e) != tc.moves {
			t.Errorf("%q: got %v (%v), %v, want %s", tc.name, e.Ref, storage.Moves(tc.name, &e), err, tc.want)
		}
	}
	for _, name := range []string{"", "/", "*", "node*", "node3", "node3/latest", "node3/" + dir + id("abc1")[:8], "19990101T000000Z-" + id("abc1")[:8], dir, "latest/7"} {
		if e, err := storage.FindNamed(t.Context(), s, name); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%q: got %v, %v", name, e.Ref, err)
		}
	}
	if _, ok := errors.AsType[*storage.AmbiguousError](second(storage.FindNamed(t.Context(), s, "77"))); !ok {
		t.Error("a host that is the beginning of an id of another host is not ambiguous")
	}
}

func second[A, B any](_ A, b B) B { return b }

func testFilters(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	var want []string
	for i := range 5 {
		m := machine(fmt.Sprintf("node%d", i%2), id(fmt.Sprintf("a%d", i)), day.Add(time.Duration(i)*time.Hour))
		m.Meta.Release = fmt.Sprintf("6.%d.0-cloud", i)
		m.Meta.PanicLine = []string{"BUG: unable to handle", "Kernel panic - 100%_odd"}[i%2]
		Receive(t, s, m, i == 3)
		want = append(want, m.Meta.Host+"/"+m.Meta.ID)
	}
	slices.Reverse(want) // newest first: 4 3 2 1 0
	for _, tc := range []struct {
		name string
		f    storage.Filter
		want []string
	}{
		{"all", storage.Filter{}, want},
		{"limit", storage.Filter{Limit: 2}, want[:2]},
		{"host", storage.Filter{Host: storage.Patterns{"node0"}}, []string{want[0], want[2], want[4]}},
		{"state", storage.Filter{State: []dumpdir.State{dumpdir.StatePartial}}, []string{want[1]}},
		{"since", storage.Filter{Since: day.Add(3 * time.Hour)}, want[:2]},
		{"until", storage.Filter{Until: day.Add(time.Hour)}, want[4:]},
		{"release", storage.Filter{Release: storage.Patterns{"6.2"}}, []string{want[2]}},
		{"panic, other case", storage.Filter{Panic: storage.Patterns{"kernel PANIC"}}, []string{want[1], want[3]}},
		{"panic, wildcard", storage.Filter{Panic: storage.Patterns{"00%_"}}, []string{want[1], want[3]}},
		{"panic, wildcard for all", storage.Filter{Panic: storage.Patterns{"%"}}, []string{want[1], want[3]}},
		{"hosts", storage.Filter{Host: storage.Patterns{"NODE0", "node?"}}, want},
		{"host, pattern", storage.Filter{Host: storage.Patterns{"*0"}}, []string{want[0], want[2], want[4]}},
		{"states", storage.Filter{State: []dumpdir.State{dumpdir.StatePartial, dumpdir.StateComplete}}, want},
		{"panic, pattern", storage.Filter{Panic: storage.Patterns{"kernel*odd"}}, []string{want[1], want[3]}},
		{"panic, bracket", storage.Filter{Panic: storage.Patterns{"[1]"}}, []string{}},
		{"both", storage.Filter{Host: storage.Patterns{"node1"}, Panic: storage.Patterns{"panic"}, Limit: 1}, []string{want[1]}},
		{"none", storage.Filter{Host: storage.Patterns{"node"}}, []string{}},
	} {
		if diff := cmp.Diff(tc.want, refs(list(t, s, tc.f))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func testRefusals(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	for _, ref := range []storage.Ref{
		{Host: "../x", ID: id("a")},
		{Host: "", ID: id("a")},
		{Host: ".x", ID: id("a")},
		{Host: "a/b", ID: id("a")},
		{Host: "a\x00", ID: id("a")},
		{Host: strings.Repeat("a", 65), ID: id("a")},
		{Host: "node1", ID: "abc"},
		{Host: "node1", ID: "../../../../etc/passwd"},
		{Host: "node1", ID: strings.ToUpper(id("a"))},
	} {
		m := machine(ref.Host, ref.ID, day)
		if _, err := s.Create(t.Context(), m.Meta); !errors.Is(err, storage.ErrBadName) {
			t.Errorf("create %q: %v", ref, err)
		}
		if _, err := s.Resume(t.Context(), ref, storage.ResumeOptions{}); !errors.Is(err, storage.ErrBadName) {
			t.Errorf("resume %q: %v", ref, err)
		}
	}
	missing := storage.Ref{Host: "node1", ID: id("a")}
	if _, err := s.Resume(t.Context(), missing, storage.ResumeOptions{}); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("resume: %v", err)
	}
	if _, err := s.Open(t.Context(), missing); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("open: %v", err)
	}
	if err := s.Remove(t.Context(), missing, storage.RemoveOptions{}); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("remove: %v", err)
	}
	m := machine("node1", id("a"), day)
	Receive(t, s, m, false)
	if _, err := s.Create(t.Context(), m.Meta); !errors.Is(err, storage.ErrExists) {
		t.Errorf("second create: %v", err)
	}
}

func testTakeover(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("a"), day)
	ref := storage.Ref{Host: "node1", ID: id("a")}
	old := begin(t, s, m)
	if err := old.PutChunk(&m.Chunks[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume(t.Context(), ref, storage.ResumeOptions{}); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("resume beside a session: %v", err)
	}
	if _, err := open().Resume(t.Context(), ref, storage.ResumeOptions{Takeover: true}); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("resume beside another process: %v", err)
	}
	w, err := s.Resume(t.Context(), ref, storage.ResumeOptions{Takeover: true, Reopen: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := old.PutChunk(&m.Chunks[1]); !errors.Is(err, dumpdir.ErrRevoked) {
		t.Errorf("put of the old session: %v", err)
	}
	if _, err := w.Seal(t.Context(), "stalled"); err != nil {
		t.Fatal(err)
	}
	w2, err := s.Resume(t.Context(), ref, storage.ResumeOptions{Takeover: true, Reopen: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(m.Chunks); i++ {
		if err := w2.PutChunk(&m.Chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	if res, err := w2.Seal(t.Context(), ""); err != nil || res.State != dumpdir.StateComplete {
		t.Fatalf("seal: %+v, %v", res, err)
	}
	if err := w2.Close(); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s, storage.Filter{}); len(got) != 1 || got[0].State() != dumpdir.StateComplete {
		t.Errorf("listed as %+v", got)
	}
	checkOpen(t, s, ref, m)
}

func testRemove(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("a"), day)
	ref := Receive(t, s, m, true)
	other := Receive(t, s, machine("node1", id("b"), day), false)
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []storage.Store{s, open()} {
		if diff := cmp.Diff([]string{other.String()}, refs(list(t, s, storage.Filter{}))); diff != "" {
			t.Errorf("after remove (-want +got):\n%s", diff)
		}
		if _, err := s.Open(t.Context(), ref); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("open after remove: %v", err)
		}
	}
	w := begin(t, s, m)
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{}); !errors.Is(err, storage.ErrArriving) {
		t.Errorf("remove of an arriving dump: %v", err)
	}
	if err := open().Remove(t.Context(), ref, storage.RemoveOptions{Force: true}); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("remove of what another process writes: %v", err)
	}
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.PutChunk(&m.Chunks[0]); !errors.Is(err, dumpdir.ErrRevoked) {
		t.Errorf("put into a removed dump: %v", err)
	}
	begin(t, s, m) // its name is free again
}

func testReindex(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	for i := range 4 {
		Receive(t, s, machine("node1", id(fmt.Sprintf("a%d", i)), day.Add(time.Duration(i)*time.Minute)), i == 2)
	}
	before := list(t, s, storage.Filter{})
	rep, err := s.Reindex(t.Context())
	if err != nil || rep.Dumps != 4 || rep.Damaged != 0 {
		t.Fatalf("reindex: %+v, %v", rep, err)
	}
	if diff := cmp.Diff(before, list(t, s, storage.Filter{})); diff != "" {
		t.Errorf("after reindex (-want +got):\n%s", diff)
	}
}

// testSubscribe: a subscriber hears of a log and of each seal, until it unsubscribes. The dumps that it hears of are listed.
func testSubscribe(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	logs, cancelLogs := s.Subscribe(storage.LogStored)
	defer cancelLogs()
	sealed, cancel := s.Subscribe(storage.Sealed)
	m := machine("node1", id("a"), day)
	w := begin(t, s, m)
	want := storage.Ref{Host: "node1", ID: id("a")}
	if ref := <-logs; ref != want || len(sealed) != 0 {
		t.Errorf("log of %v, %d seals", ref, len(sealed))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := s.Resume(t.Context(), want, storage.ResumeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Seal(t.Context(), "cut"); err != nil {
		t.Fatal(err)
	}
	if ref := <-sealed; ref != want {
		t.Errorf("seal of %v", ref)
	}
	if got := list(t, s, storage.Filter{State: []dumpdir.State{dumpdir.StatePartial}}); len(got) != 1 {
		t.Errorf("listed as %v", refs(got))
	}
	cancel()
	Receive(t, s, machine("node1", id("b"), day), false)
	if ref := <-logs; len(sealed) != 0 {
		t.Errorf("%d seals after cancel; log of %v", len(sealed), ref)
	}
}

func testSameID(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	a := Receive(t, s, machine("node1", id("a"), day), false)
	b := Receive(t, s, machine("node2", id("a"), day), true)
	if _, err := s.Find(t.Context(), id("a")); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("an id of two hosts: %v", err)
	}
	if e, err := s.Find(t.Context(), b.String()); err != nil || e.State() != dumpdir.StatePartial {
		t.Errorf("find %v: %+v, %v", b, e, err)
	}
	if err := s.Remove(t.Context(), a, storage.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Find(t.Context(), id("a")); err != nil || e.Ref != b {
		t.Errorf("find: %v, %v", e.Ref, err)
	}
}

// testSessions: many dumps are received at once.
func testSessions(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			m := machine(fmt.Sprintf("node%d", i%3), id(fmt.Sprintf("%02x", i)), day)
			if err := bring(t, s, m); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := list(t, s, storage.Filter{State: []dumpdir.State{dumpdir.StateComplete}}); len(got) != 12 {
		t.Errorf("%d dumps: %v", len(got), refs(got))
	}
}

// testProcesses: two processes use the same store at once.
func testProcesses(t *testing.T, open func() storage.Store) {
	t.Helper()
	a, b := open(), open()
	var wg sync.WaitGroup
	for i, s := range []storage.Store{a, b} {
		wg.Go(func() {
			for j := range 5 {
				if err := bring(t, s, machine(fmt.Sprintf("node%d", i), id(fmt.Sprintf("%d%d", i, j)), day)); err != nil {
					t.Error(err)
				}
				if _, err := s.List(t.Context(), storage.Filter{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, s := range []storage.Store{a, b, open()} {
		if got := list(t, s, storage.Filter{}); len(got) != 10 {
			t.Errorf("%d dumps: %v", len(got), refs(got))
		}
	}
}

func testCheckWritable(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	for range 2 {
		if err := s.CheckWritable(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if rep, err := s.Reindex(t.Context()); err != nil || len(rep.Finished) != 0 {
		t.Errorf("files are left: %+v, %v", rep, err)
	}
}
