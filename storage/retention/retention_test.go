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

// ago makes a complete dump of 100 bytes of a crash that was sealed so many days ago, with changes. All have the same panic line.
// The crash is its signature; empty: it has none.
func ago(name, host, crash string, days int, change ...func(*storage.Entry)) storage.Entry {
	end := now.AddDate(0, 0, -days)
	e := storage.Entry{Ref: storage.Ref{Host: host, ID: name}, Manifest: dumpdir.Manifest{
		State: dumpdir.StateComplete, PanicLine: "BUG: one panic line", StartTime: end, EndTime: &end,
		Pages: dumpdir.PageCounts{Present: 1}, Bytes: dumpdir.ByteCounts{VMCore: 90, Log: 10},
	}}
	if crash != "" {
		e.Signatures.Log = &dumpdir.Signature{ID: crash}
	}
	for _, c := range change {
		c(&e)
	}
	return e
}

func vague(e *storage.Entry) { e.Signatures.Log.Vague = true }

// placeless is of a class whose place is chance.
func placeless(e *storage.Entry) { e.Signatures.Log.Frames = []string{"oom"} }

// line gives a dump another panic line.
func line(text string) func(*storage.Entry) {
	return func(e *storage.Entry) { e.Manifest.PanicLine = text }
}

// partial makes a dump with so many of 9 essential pages.
func partial(pages uint64) func(*storage.Entry) {
	return func(e *storage.Entry) {
		e.Manifest.State, e.Manifest.Pages.Present = dumpdir.StatePartial, pages
		e.Manifest.Plan = &dumpdir.ManifestPlan{Classes: map[string]uint64{dumpdir.EssentialPages: 9}}
	}
}

func pinned(e *storage.Entry)  { e.Pin = &dumpdir.Pin{} }
func damaged(e *storage.Entry) { e.Verification = &dumpdir.Verification{Damaged: 1} }

// holes makes so many bytes of vmcore holes.
func holes(n uint64) func(*storage.Entry) { return func(e *storage.Entry) { e.Holes = n } }

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
		{name: "no dumps", p: Policy{MaxAge: day, MaxPerHost: 1, MaxPerCrash: 1, MaxTotal: 1}},
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
			name:    "per crash: the newest stay, and another crash with the same panic line",
			entries: []storage.Entry{ago("a", "h1", "x", 1), ago("b", "h2", "x", 2), ago("c", "h3", "x", 3), ago("d", "h3", "y", 50)},
			p:       Policy{MaxPerCrash: 2, Title: oneTitle}, want: []string{"c"},
		},
		{
			name: "per crash: without a signature that names a place nothing is the same",
			entries: []storage.Entry{
				ago("a", "h", "", 1), ago("b", "h", "", 2), ago("c", "h", "x", 3, vague), ago("d", "h", "x", 4, vague),
				ago("e", "h", "y", 5, placeless), ago("f", "h", "y", 6, placeless),
			},
			p: Policy{MaxPerCrash: 1},
		},
		{
			name: "per crash: a complete example outlives newer parts of dumps",
			entries: []storage.Entry{
				ago("part", "h", "x", 1, partial(8)), ago("essential", "h", "x", 2, partial(9)), ago("complete", "h", "x", 3),
				ago("part of y", "h", "y", 4, partial(8)), ago("essential of y", "h", "y", 5, partial(9)), ago("older", "h", "y", 6, partial(9)),
			},
			p: Policy{MaxPerCrash: 1}, want: []string{"older", "essential", "part of y", "part"},
		},
		{
			name: "total: of dumps without a signature, what repeats a panic line goes first",
			entries: []storage.Entry{
				ago("a1", "h", "", 1, line("cpu1")), ago("a2", "h", "", 2, line("cpu2")), ago("b", "h", "", 50, line("b")), ago("x", "h", "x", 60),
			},
			p: Policy{MaxTotal: 300, Title: oneTitle}, want: []string{"a2"},
		},
		{
			name:    "total: dumps without a signature are no repetitions if the limit cannot be met",
			entries: []storage.Entry{ago("a", "h", "", 1), ago("b", "h", "", 2), ago("c", "h", "", 3, pinned), ago("x1", "h", "x", 4), ago("x2", "h", "x", 5)},
			p:       Policy{MaxTotal: 50}, want: []string{"x2", "pinned c"}, unmet: "alone have 50 bytes more",
		},
		{
			name:    "per crash: an example with pages outlives newer logs and damage",
			entries: []storage.Entry{ago("log", "h", "x", 1, logOnly), ago("bad", "h", "x", 2, damaged), ago("good", "h", "x", 3), ago("old", "h", "x", 4)},
			p:       Policy{MaxPerCrash: 1}, want: []string{"old", "bad", "log"},
		},
		{
			name:    "per crash: a pinned old dump stays and is said to",
			entries: []storage.Entry{ago("a", "h", "x", 1), ago("b", "h", "x", 2), ago("c", "h", "x", 3, pinned)},
			p:       Policy{MaxPerCrash: 1}, want: []string{"b", "pinned c"},
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
			name:    "total: holes do not count",
			entries: []storage.Entry{ago("a", "h", "x", 1, holes(80)), ago("b", "h", "y", 2, holes(80)), ago("c", "h", "z", 3)},
			p:       Policy{MaxTotal: 140},
		},
		{
			name:    "total: not met for pins",
			entries: []storage.Entry{ago("a", "h", "x", 1, pinned), ago("b", "h", "y", 2, arriving), ago("c", "h", "z", 3)},
			p:       Policy{MaxTotal: 50}, want: []string{"arriving b", "pinned a"}, unmet: "alone have 150 bytes more",
		},
		{
			name:    "free: what another limit took counts",
			entries: []storage.Entry{ago("a", "h", "a", 1), ago("b", "h", "b", 2), ago("old", "h", "c", 90)},
			p:       Policy{MaxAge: 80 * day, KeepFree: 250}, space: storage.Space{Total: 1000, Free: 100}, want: []string{"old", "b"},
		},
		{
			name:    "free: not met",
			entries: []storage.Entry{ago("a", "h", "a", 1)},
			p:       Policy{KeepFree: 900}, space: storage.Space{Total: 1000, Free: 100}, unmet: "needs 700 bytes more than the removal",
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
		{"2100", Clock{Now: now.AddDate(74, 0, 0)}, 0, "nothing else confirms the clock"},
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

// TestGoalOutOfReachTakesRepetitionsOnly has disks that others fill, and stores that are pinned: no removal would meet the
// limit, so no crash loses its example for it.
func TestGoalOutOfReachTakesRepetitionsOnly(t *testing.T) {
	entries := func() []storage.Entry {
		return []storage.Entry{
			ago("x1", "h", "x", 1), ago("x2", "h", "x", 2), ago("x3", "g", "x", 3), ago("y", "h", "y", 4),
			ago("bad", "h", "z", 5, damaged), ago("badder", "h", "z", 6, damaged), ago("unnamed", "h", "", 7), ago("log", "h", "w", 8, logOnly),
		}
	}
	with := func(more ...storage.Entry) []storage.Entry { return append(entries(), more...) }
	for _, tc := range []struct {
		name    string
		entries []storage.Entry
		p       Policy
		space   storage.Space
		want    []string
		unmet   string
	}{
		{
			name: "free: others have the disk", entries: entries(), p: Policy{KeepFree: 5000},
			space: storage.Space{Total: 10000, Free: 100}, want: []string{"x3", "badder", "x2"},
			unmet: "keep_free is 4.9 KiB (5000 bytes): it needs 4.1 KiB (4200 bytes) more than the removal of all removable dumps frees; the disk has 9.8 KiB (10000 bytes), dumps use 710 bytes, other files use 9.0 KiB (9190 bytes); only repetitions of a crash are removed for it",
		},
		{
			name: "free: one byte out of reach", entries: entries(), p: Policy{KeepFree: 801},
			space: storage.Space{Total: 10000, Free: 100}, want: []string{"x3", "badder", "x2"}, unmet: "it needs 1 bytes more",
		},
		{
			name: "free: just in reach", entries: entries(), p: Policy{KeepFree: 800},
			space: storage.Space{Total: 10000, Free: 100}, want: []string{"x3", "badder", "x2", "unnamed", "bad", "y", "x1"},
		},
		{
			name: "free: more than the disk is large", entries: entries(), p: Policy{KeepFree: 1 << 40},
			space: storage.Space{Total: 10000, Free: 9000}, want: []string{"x3", "badder", "x2"}, unmet: "keep_free is 1.0 TiB (1099511627776 bytes)",
		},
		{
			name: "free: the only pages of a crash are no repetition of a log, nor of a dump that arrives", p: Policy{KeepFree: 5000}, space: storage.Space{Total: 10000, Free: 100},
			entries: []storage.Entry{
				ago("log", "h", "z", 1, logOnly), ago("bad", "h", "z", 2, damaged), ago("badder", "h", "z", 3, damaged),
				ago("coming", "h", "y", 1, arriving), ago("scratched", "h", "y", 2, damaged),
			},
			want: []string{"badder", "arriving coming"}, unmet: "4600 bytes) more",
		},
		{
			name: "free: another limit takes an example, this one does not", entries: entries(), p: Policy{MaxAge: 150 * time.Hour, KeepFree: 5000},
			space: storage.Space{Total: 10000, Free: 100}, want: []string{"log", "unnamed", "x3", "badder", "x2"}, unmet: "4190 bytes) more",
		},
		{
			name: "total: pins alone are too much", entries: with(ago("p", "h", "p", 1, pinned), ago("q", "h", "q", 1, pinned)), p: Policy{MaxTotal: 150},
			want: []string{"x3", "badder", "x2", "pinned q", "pinned p"}, unmet: "max_total is 150 bytes: pinned and arriving dumps and logs alone have 60 bytes more",
		},
		{
			name: "per host: pins alone are too many", entries: with(ago("p", "h", "p", 1, pinned), ago("q", "h", "q", 1, pinned)), p: Policy{MaxPerHost: 1},
			want: []string{"badder", "x2", "pinned q", "pinned p"}, unmet: "host h has 2 pinned or arriving dumps; the limit is 1",
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
		})
	}
}
