package retention

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

var now = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)

// ago makes a complete dump of 100 bytes that was sealed so many days ago, with changes.
func ago(name, host, panicLine string, days int, change ...func(*storage.Entry)) storage.Entry {
	end := now.AddDate(0, 0, -days)
	e := storage.Entry{Ref: storage.Ref{Host: host, ID: name}, Manifest: dumpdir.Manifest{
		State: dumpdir.StateComplete, PanicLine: panicLine, StartTime: end, EndTime: &end,
		Pages: dumpdir.PageCounts{Present: 1}, Bytes: dumpdir.ByteCounts{VMCore: 90, Log: 10},
	}}
	for _, c := range change {
		c(&e)
	}
	return e
}

func pinned(e *storage.Entry)  { e.Pin = &dumpdir.Pin{} }
func damaged(e *storage.Entry) { e.Verification = &dumpdir.Verification{Damaged: 1} }

func arriving(e *storage.Entry) { e.Manifest.State, e.Manifest.EndTime = dumpdir.StateArriving, nil }

func logOnly(e *storage.Entry) {
	e.Manifest.State, e.Manifest.Pages, e.Manifest.Bytes.VMCore = dumpdir.StateLogOnly, dumpdir.PageCounts{}, 0
}

func crashedAt(t time.Time) func(*storage.Entry) {
	return func(e *storage.Entry) { e.Manifest.CrashTime = &t }
}

func names(p Plan) (out []string) {
	for _, r := range p.Remove {
		out = append(out, r.Entry.ID)
	}
	for _, h := range p.Held {
		out = append(out, h.By+" "+h.Entry.ID)
	}
	return out
}

func TestDecide(t *testing.T) {
	day := 24 * time.Hour
	oneTitle := func(s string) string { return strings.TrimRight(s, "0123456789") }
	for _, tc := range []struct {
		name    string
		entries []storage.Entry
		p       Policy
		space   storage.Space
		want    []string
		unmet   string
	}{
		{name: "no limits", entries: []storage.Entry{ago("a", "h", "x", 9000)}},
		{name: "no dumps", p: Policy{MaxAge: day, MaxPerHost: 1, MaxPerPanic: 1, MaxTotal: 1}},
		{
			name:    "age: the oldest first, never pinned or arriving ones",
			entries: []storage.Entry{ago("new", "h", "x", 1), ago("a", "h", "x", 11), ago("b", "h", "y", 40), ago("c", "h", "y", 41, pinned), ago("d", "h", "y", 99, arriving)},
			p:       Policy{MaxAge: 10 * day}, want: []string{"b", "a", "pinned c"},
		},
		{
			name:    "age is not that of the crashed machine's clock",
			entries: []storage.Entry{ago("a", "h", "x", 1, crashedAt(time.Unix(0, 0))), ago("b", "h", "x", 20, crashedAt(now.AddDate(70, 0, 0)))},
			p:       Policy{MaxAge: 10 * day}, want: []string{"b"},
		},
		{
			name:    "per panic: by title, the newest stay",
			entries: []storage.Entry{ago("a", "h1", "x1", 1), ago("b", "h2", "x2", 2), ago("c", "h3", "x3", 3), ago("d", "h3", "y", 50)},
			p:       Policy{MaxPerPanic: 2, Title: oneTitle}, want: []string{"c"},
		},
		{
			name:    "per panic: without a panic line nothing is the same",
			entries: []storage.Entry{ago("a", "h", "", 1), ago("b", "h", "", 2)},
			p:       Policy{MaxPerPanic: 1},
		},
		{
			name:    "per panic: an example with pages outlives newer logs and damage",
			entries: []storage.Entry{ago("log", "h", "x", 1, logOnly), ago("bad", "h", "x", 2, damaged), ago("good", "h", "x", 3), ago("old", "h", "x", 4)},
			p:       Policy{MaxPerPanic: 1}, want: []string{"old", "bad", "log"},
		},
		{
			name:    "per panic: a pinned old dump stays and is said to",
			entries: []storage.Entry{ago("a", "h", "x", 1), ago("b", "h", "x", 2), ago("c", "h", "x", 3, pinned)},
			p:       Policy{MaxPerPanic: 1}, want: []string{"b", "pinned c"},
		},
		{
			name: "per host: what repeats goes before what came once",
			entries: []storage.Entry{
				ago("x1", "h", "x", 1), ago("x2", "h", "x", 2), ago("x3", "h", "x", 3), ago("y", "h", "y", 90), ago("other", "g", "x", 95),
			},
			p: Policy{MaxPerHost: 2}, want: []string{"x3", "x2"},
		},
		{
			name:    "per host: examples too, the oldest first",
			entries: []storage.Entry{ago("a", "h", "a", 1), ago("b", "h", "b", 2), ago("c", "h", "c", 3)},
			p:       Policy{MaxPerHost: 1}, want: []string{"c", "b"},
		},
		{
			name:    "total: repeats, then the oldest examples; logs free nothing",
			entries: []storage.Entry{ago("x1", "h", "x", 1), ago("x2", "h", "x", 2), ago("y", "h", "y", 50), ago("z", "h", "z", 60, logOnly)},
			p:       Policy{MaxTotal: 200}, want: []string{"x2", "y"},
		},
		{
			name:    "total: not met for pins",
			entries: []storage.Entry{ago("a", "h", "x", 1, pinned), ago("b", "h", "y", 2, arriving), ago("c", "h", "z", 3)},
			p:       Policy{MaxTotal: 50}, want: []string{"c", "arriving b", "pinned a"}, unmet: "150 bytes more than the 50",
		},
		{
			name:    "free: what another limit took counts",
			entries: []storage.Entry{ago("a", "h", "a", 1), ago("b", "h", "b", 2), ago("old", "h", "c", 90)},
			p:       Policy{MaxAge: 80 * day, KeepFree: 250}, space: storage.Space{Total: 1000, Free: 100}, want: []string{"old", "b"},
		},
		{
			name:    "free: not met",
			entries: []storage.Entry{ago("a", "h", "a", 1)},
			p:       Policy{KeepFree: 900}, space: storage.Space{Total: 1000, Free: 100}, want: []string{"a"}, unmet: "700 bytes lack",
		},
		{
			name:    "free: a store without a bound",
			entries: []storage.Entry{ago("a", "h", "a", 1)},
			p:       Policy{KeepFree: 900},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plan := Decide(tc.entries, tc.p, tc.space, Clock{Now: now})
			if diff := cmp.Diff(tc.want, names(plan)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := strings.Join(plan.Unmet, "\n"); (tc.unmet == "") != (got == "") || !strings.Contains(got, tc.unmet) {
				t.Errorf("unmet: %q", got)
			}
			for _, r := range plan.Remove {
				if r.Why == "" || r.Entry.Pin != nil || r.Entry.Manifest.State == dumpdir.StateArriving {
					t.Errorf("removes %+v", r)
				}
			}
		})
	}
}

// TestClock keeps a wrong clock from emptying the store.
func TestClock(t *testing.T) {
	day := 24 * time.Hour
	entries := func() []storage.Entry {
		return []storage.Entry{ago("a", "h", "a", 1), ago("b", "h", "b", 5), ago("c", "h", "c", 30)}
	}
	for _, tc := range []struct {
		name  string
		clock Clock
		want  int
		says  string
	}{
		{"right", Clock{Now: now}, 1, ""},
		{"1970", Clock{Now: time.Unix(0, 0), Steady: 100 * day}, 0, "was sealed at 2026-04-30"},
		{"a little behind", Clock{Now: now.AddDate(0, 0, -1).Add(-time.Minute)}, 1, ""},
		{"2100", Clock{Now: now.AddDate(74, 0, 0)}, 0, "nothing else vouches"},
		{"2100 and steady", Clock{Now: now.AddDate(74, 0, 0), Steady: day}, 3, ""},
		{"2100 and trusted", Clock{Now: now.AddDate(74, 0, 0), Trusted: true}, 3, ""},
		{"1970 and trusted", Clock{Now: time.Unix(0, 0), Trusted: true}, 0, ""},
		{"jumped", Clock{Now: now, Jumped: true, Steady: 23 * time.Hour}, 0, "has jumped"},
		{"jumped long ago", Clock{Now: now, Jumped: true, Steady: 25 * time.Hour}, 1, ""},
	} {
		plan := Decide(entries(), Policy{MaxAge: 10 * day}, storage.Space{}, tc.clock)
		if len(plan.Remove) != tc.want || !strings.Contains(fmt.Sprint(plan.Unmet), tc.says) || (tc.says == "") != (plan.Unmet == nil) {
			t.Errorf("%s: removes %v, %v", tc.name, names(plan), plan.Unmet)
		}
	}
}

func TestWatch(t *testing.T) {
	wall, mono := now, time.Duration(0)
	w := &watch{now: func() time.Time { return wall }, mono: func() time.Duration { return mono }}
	step := func(dWall, dMono time.Duration) Clock {
		wall, mono = wall.Add(dWall), mono+dMono
		return w.look()
	}
	for i, tc := range []struct {
		wall, mono time.Duration
		steady     time.Duration
		jumped     bool
	}{
		{0, 0, 0, false},
		{time.Hour, time.Hour, time.Hour, false},
		{61 * time.Minute, time.Hour, 2 * time.Hour, false}, // drifts
		{600 * time.Hour, time.Hour, 0, true},
		{time.Hour, time.Hour, time.Hour, true},
		{-600 * time.Hour, time.Hour, 0, true},
	} {
		c := step(tc.wall, tc.mono)
		if c.Steady != tc.steady || c.Jumped != tc.jumped || !c.Now.Equal(wall) {
			t.Errorf("step %d: %+v", i, c)
		}
	}
}
