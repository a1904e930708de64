// Package indextest tests implementations of index.Index. It is for tests only.
package indextest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/index"
	"github.com/corehaul/corehaul/storage/storagetest"
)

// Run runs the suite. newIndex makes an empty index and returns a function that opens it as another process would. The
// suite closes what it opens.
func Run(t *testing.T, newIndex func(t *testing.T) (open func() index.Index)) {
	t.Helper()
	storagetest.RunSuite(t, newIndex, map[string]func(*testing.T, func() index.Index){
		"OlderReadingChangesNothing": testOlderReading,
		"RebuildAtOnce":              testRebuildAtOnce,
		"TwoProcesses":               testTwoProcesses,
		"Concurrent":                 testConcurrent,
		"Filters":                    testFilters,
		"Prefix":                     testPrefix,
		"WhatIsNoted":                testWhatIsNoted,
		"Sightings":                  testSightings,
	})
}

var begin = time.Unix(1700000000, 0).UTC()

func entry(host, id string, state dumpdir.State) *storage.Entry {
	return &storage.Entry{
		Ref: storage.Ref{Host: host, ID: id}, Path: "dumps/" + host + "/" + id,
		Manifest: dumpdir.Manifest{Version: 1, ID: id, Host: host, State: state, StartTime: begin},
	}
}

// put puts dumps as read now.
func put(t *testing.T, ix index.Index, entries ...*storage.Entry) {
	t.Helper()
	for _, e := range entries {
		if err := ix.Put(t.Context(), e, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

// listed returns "host/id state" of the dumps that f chooses.
func listed(t *testing.T, ix index.Index, f storage.Filter) string {
	t.Helper()
	entries, err := ix.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return text(entries)
}

func text(entries []storage.Entry) string {
	var out []string
	for i := range entries {
		out = append(out, entries[i].String()+" "+string(entries[i].Manifest.State))
	}
	return strings.Join(out, ", ")
}

func wantBuilt(t *testing.T, ix index.Index, want bool) {
	t.Helper()
	if built, err := ix.Built(t.Context()); err != nil || built != want {
		t.Errorf("built %v, %v", built, err)
	}
}

// testOlderReading: a rebuild does not undo what a session has put meanwhile.
func testOlderReading(t *testing.T, open func() index.Index) {
	t.Helper()
	ix := open()
	scan := time.Now()
	for _, step := range []struct {
		e    *storage.Entry
		read time.Time
	}{
		{entry("h", "gone", dumpdir.StateComplete), scan.Add(-time.Hour)},
		{entry("h", "a", dumpdir.StateComplete), scan.Add(time.Second)},
		{entry("h", "a", dumpdir.StateArriving), scan},
		{entry("h", "came", dumpdir.StateArriving), scan.Add(time.Second)},
	} {
		if err := ix.Put(t.Context(), step.e, step.read); err != nil {
			t.Fatal(err)
		}
	}
	wantBuilt(t, ix, false)
	read := []storage.Entry{*entry("h", "a", dumpdir.StateArriving), *entry("h", "b", dumpdir.StatePartial)}
	if err := ix.Rebuild(t.Context(), read, scan); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, ix, storage.Filter{}); got != "h/a complete, h/b partial, h/came arriving" {
		t.Errorf("got %s", got)
	}
	wantBuilt(t, ix, true)
}

// testRebuildAtOnce: an interrupted rebuild changes nothing.
func testRebuildAtOnce(t *testing.T, open func() index.Index) {
	t.Helper()
	ix := open()
	put(t, ix, entry("h", "a", dumpdir.StateComplete))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ix.Rebuild(ctx, []storage.Entry{*entry("h", "b", dumpdir.StatePartial)}, time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("rebuild: %v", err)
	}
	if got := listed(t, ix, storage.Filter{}); got != "h/a complete" {
		t.Errorf("got %s", got)
	}
	wantBuilt(t, ix, false)
}

func testTwoProcesses(t *testing.T, open func() index.Index) {
	t.Helper()
	a, b := open(), open()
	put(t, a, entry("h", "a", dumpdir.StateArriving))
	put(t, b, entry("h", "a", dumpdir.StateComplete))
	if got := listed(t, a, storage.Filter{}); got != "h/a complete" {
		t.Errorf("got %s", got)
	}
	for range 2 {
		if err := a.Delete(t.Context(), storage.Ref{Host: "h", ID: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := listed(t, b, storage.Filter{}); got != "" {
		t.Errorf("got %s", got)
	}
}

// testConcurrent: two processes, each with several goroutines, put, list and rebuild.
func testConcurrent(t *testing.T, open func() index.Index) {
	t.Helper()
	var wg sync.WaitGroup
	for p, ix := range []index.Index{open(), open()} {
		for g := range 3 {
			wg.Go(func() {
				for i := range 5 {
					err := ix.Put(t.Context(), entry(fmt.Sprintf("p%d", p), fmt.Sprintf("%d%d", g, i), dumpdir.StateComplete), time.Now())
					_, lerr := ix.List(t.Context(), storage.Filter{Limit: 3})
					if err := errors.Join(err, lerr, ix.Rebuild(t.Context(), nil, time.Unix(1, 0))); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if got := listed(t, open(), storage.Filter{}); strings.Count(got, "complete") != 30 {
		t.Errorf("got %s", got)
	}
}

func testFilters(t *testing.T, open func() index.Index) {
	t.Helper()
	ix := open()
	for i := range 4 {
		e := entry(fmt.Sprintf("h%d", i%2), fmt.Sprint(i), []dumpdir.State{dumpdir.StateComplete, dumpdir.StatePartial, dumpdir.StateDamaged, dumpdir.StateArriving}[i])
		crash := begin.Add(time.Duration(i) * time.Hour)
		e.Manifest.CrashTime = &crash
		e.Manifest.Release, e.Manifest.PanicLine = fmt.Sprintf("6.%d.0", i), []string{"BUG: x", "Kernel panic - 100%_odd"}[i%2]
		e.Title = []string{"", "Kasan: b", "kasan: a%", ""}[i]
		put(t, ix, e)
	}
	same := begin.Add(3 * time.Hour)
	for _, ref := range []storage.Ref{{Host: "h0", ID: "9"}, {Host: "h2", ID: "1"}} { // of the time of the newest
		e := entry(ref.Host, ref.ID, dumpdir.StateLogOnly)
		e.Manifest.CrashTime = &same
		put(t, ix, e)
	}
	for _, tc := range []struct {
		name string
		f    storage.Filter
		want string
	}{
		{"all", storage.Filter{}, "h0/9 log-only, h1/3 arriving, h2/1 log-only, h0/2 damaged, h1/1 partial, h0/0 complete"},
		{"limit", storage.Filter{Limit: 2}, "h0/9 log-only, h1/3 arriving"},
		{"host", storage.Filter{Host: storage.Patterns{"h0"}}, "h0/9 log-only, h0/2 damaged, h0/0 complete"},
		{"state", storage.Filter{State: []dumpdir.State{dumpdir.StateDamaged}}, "h0/2 damaged"},
		{"since", storage.Filter{Since: begin.Add(2 * time.Hour), Host: storage.Patterns{"h0"}}, "h0/9 log-only, h0/2 damaged"},
		{"until", storage.Filter{Until: begin.Add(time.Hour)}, "h0/0 complete"},
		{"release", storage.Filter{Release: storage.Patterns{"6.2"}}, "h0/2 damaged"},
		{"release by patterns", storage.Filter{Release: storage.Patterns{"no such", "6.[2]", "6*2"}}, "h0/2 damaged"},
		{"panic, other case", storage.Filter{Panic: storage.Patterns{"kernel PANIC"}}, "h1/3 arriving, h1/1 partial"},
		{"panic, wildcard", storage.Filter{Panic: storage.Patterns{"00%_"}}, "h1/3 arriving, h1/1 partial"},
		{"title, other case", storage.Filter{Panic: storage.Patterns{"KASAN: A%"}}, "h0/2 damaged"},
		{"title of part of the dumps", storage.Filter{Panic: storage.Patterns{"kasan"}}, "h0/2 damaged, h1/1 partial"},
		{"quote", storage.Filter{Host: storage.Patterns{"h0' OR '1'='1"}}, ""},
		{"none", storage.Filter{Host: storage.Patterns{"h"}}, ""},
		{"only", storage.Filter{Only: []storage.Ref{{Host: "h1", ID: "1"}, {Host: "h0", ID: "9"}, {Host: "h0", ID: "1"}}}, "h0/9 log-only, h1/1 partial"},
		{"only none", storage.Filter{Only: []storage.Ref{}}, ""},
	} {
		if got := listed(t, ix, tc.f); got != tc.want {
			t.Errorf("%s: %s", tc.name, got)
		}
	}
}

func testPrefix(t *testing.T, open func() index.Index) {
	t.Helper()
	ix := open()
	for _, ref := range []storage.Ref{{Host: "b", ID: "ab1"}, {Host: "a", ID: "ab2"}, {Host: "a", ID: "ab1"}, {Host: "a", ID: "b"}} {
		put(t, ix, entry(ref.Host, ref.ID, dumpdir.StateComplete))
	}
	for _, tc := range []struct {
		host, prefix string
		limit        int
		want         string
	}{
		{"", "ab", 9, "a/ab1 complete, a/ab2 complete, b/ab1 complete"},
		{"", "ab", 2, "a/ab1 complete, a/ab2 complete"},
		{"a", "ab", 9, "a/ab1 complete, a/ab2 complete"},
		{"a", "ab2", 9, "a/ab2 complete"},
		{"", "AB", 9, ""},
		{"", "%", 9, ""},
		{"", "_b", 9, ""},
		{"c", "", 9, ""},
		{"", "ab1x", 9, ""},
	} {
		got, err := ix.Prefix(t.Context(), tc.host, tc.prefix, tc.limit)
		if err != nil || text(got) != tc.want {
			t.Errorf("%s/%s: %s, %v", tc.host, tc.prefix, text(got), err)
		}
	}
}

// testWhatIsNoted: the index returns manifest, path, kind, title and signatures as they were put, and nothing else of side files.
func testWhatIsNoted(t *testing.T, open func() index.Index) {
	t.Helper()
	e := entry("h", "a", dumpdir.StatePartial)
	e.Path = "/odd 'path'/\"x\"%20?#"
	e.Manifest.Reason, e.Manifest.PanicLine = "cut; 'off' -- \u00e9", "BUG"
	e.Manifest.Encodings = map[string]uint64{"zlib": 3}
	e.Manifest.Pages.Present = 1<<63 + 1
	e.Kind, e.Title = "bug", "kernel BUG in 'x'"
	e.Signatures.Log = &dumpdir.Signature{ID: "0123456789abcdef", Coarse: "fedcba9876543210", Frames: []string{"bug", "'x' [y]"}}
	e.Signatures.Memory = &dumpdir.Signature{ID: "00000000000000ff", Coarse: "fedcba9876543210", Frames: []string{}, Vague: true}
	e.Pin = &dumpdir.Pin{Version: 1}
	put(t, open(), e)
	got, err := open().List(t.Context(), storage.Filter{})
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	want := *e
	want.Pin = nil
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
