package groups

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

var begin = time.Unix(1700000000, 0).UTC()

// fakeStore is the sightings of a store, oldest first.
type fakeStore []storage.Sighting

func (f fakeStore) Sightings(_ context.Context, after *storage.Sighting, limit int) (page []storage.Sighting, err error) {
	all := slices.Clone(f)
	slices.SortFunc(all, func(a, b storage.Sighting) int { return b.Compare(&a) })
	for i := range all {
		if (after == nil || all[i].Before(after)) && len(page) < min(limit, 2) {
			page = append(page, all[i])
		}
	}
	return page, nil
}

// sig makes a signature of two digits.
func sig(s string) string { return s + strings.Repeat("0", 14) }

// seen is a dump: "id host release signature[+linked]". Each is an hour later than the one before it in a store.
func seen(lines ...string) (f fakeStore) {
	for i, line := range lines {
		w := strings.Fields(line)
		s := storage.Sighting{Ref: storage.Ref{Host: w[1], ID: w[0]}, At: begin.Add(time.Duration(i) * time.Hour), State: dumpdir.StateComplete, Release: w[2], Title: "title of " + w[0]}
		if len(w) > 3 {
			a, b, linked := strings.Cut(w[3], "+")
			if s.Signature = sig(a); linked {
				s.Linked = sig(b)
			}
		}
		f = append(f, s)
	}
	return f
}

func collect(t *testing.T, f fakeStore, st *State) *Groups {
	t.Helper()
	gs, err := Collect(t.Context(), f, st, storage.Filter{}, begin)
	if err != nil {
		t.Fatal(err)
	}
	return gs
}

func find(t *testing.T, gs *Groups, name string) *Group {
	t.Helper()
	g, err := gs.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// text is "ID status dumps" of all groups.
func text(gs *Groups) string {
	var out []string
	for _, g := range gs.All {
		out = append(out, fmt.Sprintf("%s %s %d", g.ID[:2], g.Status, g.Dumps))
	}
	return strings.Join(out, ", ")
}

func want(t *testing.T, f fakeStore, st *State, want string) {
	t.Helper()
	if got := text(collect(t, f, st)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func set(t *testing.T, f fakeStore, st *State, name string, change func(string, *Mark)) {
	t.Helper()
	if err := st.Set(find(t, collect(t, f, st), name), change); err != nil {
		t.Fatal(err)
	}
}

var made = Made{By: "me", Time: begin}

func TestGroups(t *testing.T) {
	f := seen("a h1 6.1.0-9-amd64 aa", "b h2 6.1.0-10-amd64 aa", "c h1 6.1.0-9-amd64 bb", "d h1 6.1.0 ", "e h3 6.1.0-9-amd64 aa")
	f[4].State = dumpdir.StatePartial
	f[2].Vague = true
	gs := collect(t, f, &State{})
	if got := text(gs); got != "aa new 3, bb new 1" || gs.Unsigned != 1 {
		t.Fatalf("%s, %d without signature", got, gs.Unsigned)
	}
	g := gs.All[0]
	if g.First != begin || g.Last != begin.Add(4*time.Hour) || g.Title != "title of e" || g.Example.ID != "b" ||
		strings.Join(g.Hosts, " ") != "h1 h2 h3" || strings.Join(g.Kernels, " ") != "6.1.0-9-amd64 6.1.0-10-amd64" || g.Vague || !gs.All[1].Vague {
		t.Errorf("%+v", g)
	}
	members, err := gs.Members(t.Context(), f, g)
	if err != nil || len(members) != 3 || members[0].ID != "e" || members[2].ID != "a" {
		t.Errorf("%v, %v", members, err)
	}
}

// TestLinks: a dump with two signatures links them, so a dump that has only one of them finds the group.
func TestLinks(t *testing.T) {
	want(t, seen("a h 6.1.0 aa", "b h 6.1.0 bb", "c h 6.1.0 cc"), &State{}, "cc new 1, bb new 1, aa new 1")
	want(t, seen("a h 6.1.0 aa", "b h 6.1.0 bb", "c h 6.1.0 aa+bb"), &State{}, "aa new 3")
	want(t, seen("b h 6.1.0 bb", "a h 6.1.0 aa", "d h 6.1.0 cc+bb", "e h 6.1.0 dd", "c h 6.1.0 aa+bb"), &State{}, "bb new 4, dd new 1")
}

func TestFind(t *testing.T) {
	f := seen("a h 6.1.0 aa", "b h 6.1.0 ab", "c h 6.1.0 aa+cc")
	f[1].Signature = "aa00" + strings.Repeat("1", 12)
	gs := collect(t, f, &State{})
	for name, want := range map[string]string{sig("aa"): sig("aa"), "aa001": f[1].Signature, "cc00": sig("aa"), "aa000": sig("aa")} {
		if g := find(t, gs, name); g.ID != want {
			t.Errorf("%s is %s", name, g.ID)
		}
	}
	for _, name := range []string{"", "aa", "ddddd", "aa002"} {
		if g, err := gs.Find(name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s is %v, %v", name, g, err)
		}
	}
	_, err := gs.Find("aa00")
	if several, ok := errors.AsType[*AmbiguousError](err); !ok || len(several.Candidates) != 2 || !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// TestChosen: a filter chooses groups by their dumps; the figures stay those of all dumps.
func TestChosen(t *testing.T) {
	f := seen("a h1 6.1.0 aa", "b h2 6.2.0 aa", "c h1 6.1.0 bb")
	f[0].PanicLine = "Kernel PANIC"
	for _, tc := range []struct {
		f      storage.Filter
		status []Status
		want   string
	}{
		{storage.Filter{}, nil, "bb aa"},
		{storage.Filter{Host: storage.Patterns{"h2"}}, nil, "aa"},
		{storage.Filter{Host: storage.Patterns{"h2"}, Release: storage.Patterns{"6.1"}}, nil, ""},
		{storage.Filter{Since: begin.Add(2 * time.Hour)}, nil, "bb"},
		{storage.Filter{Until: begin.Add(time.Hour)}, nil, "aa"},
		{storage.Filter{Panic: storage.Patterns{"kernel panic"}}, nil, "aa"},
		{storage.Filter{Panic: storage.Patterns{"TITLE OF C"}}, nil, "bb"},
		{storage.Filter{}, []Status{StatusMuted}, ""},
		{storage.Filter{}, []Status{StatusMuted, StatusNew}, "bb aa"},
	} {
		gs, err := Collect(t.Context(), f, &State{}, tc.f, begin)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, g := range gs.Chosen(tc.status...) {
			got = append(got, g.ID[:2])
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%+v %v: %v", tc.f, tc.status, got)
		}
	}
}

func TestMute(t *testing.T) {
	f, st := seen("a h 6.1.0 aa", "b h 6.1.0 bb"), &State{}
	until := begin.Add(time.Hour)
	set(t, f, st, sig("aa"), func(_ string, m *Mark) { m.Muted = &Mute{Until: &until, Made: made} })
	want(t, f, st, "bb new 1, aa muted 1")
	gs, err := Collect(t.Context(), f, st, storage.Filter{}, until)
	if err != nil || text(gs) != "bb new 1, aa new 1" {
		t.Errorf("later: %s, %v", text(gs), err)
	}
	// A hostile host links a new crash with a muted one. It does not become silent.
	f = seen("a h 6.1.0 aa", "b h 6.1.0 bb", "c evil 6.1.0 aa+bb")
	want(t, f, st, "aa new 3")
	f = seen("a h 6.1.0 aa", "c h 6.1.0 aa+bb") // the same crash, which memory calls by another name
	want(t, f, st, "aa muted 2")
}

func TestUnmuteForgets(t *testing.T) {
	f, st := seen("a h 6.1.0 aa"), &State{}
	set(t, f, st, sig("aa"), func(_ string, m *Mark) { m.Muted = &Mute{Made: made} })
	want(t, f, st, "aa muted 1")
	set(t, f, st, sig("aa"), func(_ string, m *Mark) { m.Muted = nil })
	if len(st.Signatures) != 0 {
		t.Errorf("%v", st.Signatures)
	}
}

// resolve says that a group is resolved in a kernel, as the command does.
func resolve(t *testing.T, f fakeStore, st *State, name string, kernels ...string) {
	t.Helper()
	gs := collect(t, f, st)
	g := find(t, gs, name)
	members, err := gs.Members(t.Context(), f, g)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Resolve(gs, g, members, kernels, made); err != nil {
		t.Fatal(err)
	}
}

func TestResolve(t *testing.T) {
	old := []string{"a h 6.1.0-9-amd64 aa", "b h 6.1.0-10-amd64 aa", "c h 5.14.0-362.el9.x86_64 aa"}
	for _, tc := range []struct{ came, want string }{
		{"d h 6.1.0-9-amd64 aa", "resolved"},
		{"d h 6.1.0-10-amd64 aa", "regressed"},
		{"d h 6.1.0-11-amd64 aa", "regressed"},
		{"d h 6.2.0-rc1 aa", "regressed"},
		{"d h 5.14.0-362.el9.x86_64 aa", "regressed"}, // the one before is known, this one is not
		{"d h (unknown) aa", "regressed"},
		{"d h 6.1.0-11-amd64 bb", "resolved"},
	} {
		st := &State{}
		resolve(t, seen(old...), st, sig("aa"), "6.1.0-10-amd64")
		want(t, seen(old...), st, "aa resolved 3")
		g := find(t, collect(t, seen(append(slices.Clone(old), tc.came)...), st), sig("aa"))
		if string(g.Status) != tc.want {
			t.Errorf("%s: %s", tc.came, g.Status)
		}
		if r := g.Regression; r != nil && (r.Dump.ID != "d" || r.Dumps != 1 || r.Unordered == strings.Contains(tc.came, "-1")) {
			t.Errorf("%s: %+v", tc.came, r)
		}
	}
}

// TestResolveInSeveral: of several kernels, those count that can be ordered with that of a dump.
func TestResolveInSeveral(t *testing.T) {
	f, st := seen("a h 6.1.0-9-amd64 aa", "b h 5.14.0-362.el9.x86_64 aa"), &State{}
	resolve(t, f, st, sig("aa"), "6.1.0-10-amd64", "5.14.0-427.el9.x86_64")
	for release, want := range map[string]Status{
		"6.1.0-9-amd64": StatusResolved, "5.14.0-400.el9.x86_64": StatusResolved, "5.14.0-427.el9.x86_64": StatusRegressed,
		"6.1.0-11-amd64": StatusRegressed, "5.15.0-91-generic": StatusRegressed,
	} {
		f := append(slices.Clone(f), seen("x h x", "x h x", "c h "+release+" aa")[2:]...)
		if g := find(t, collect(t, f, st), sig("aa")); g.Status != want {
			t.Errorf("%s: %s", release, g.Status)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	f, st := seen("a h 6.1.0 aa"), &State{}
	gs := collect(t, f, st)
	for _, kernel := range []string{"", "next week", "6.1.0 or so", "6", "6.1.0-\x1b[2J"} {
		if _, err := st.Resolve(gs, gs.All[0], f, []string{kernel}, made); err == nil || len(st.Signatures) > 0 {
			t.Errorf("%q: %v, %v", kernel, err, st.Signatures)
		}
	}
}

func TestMergeSplitUndo(t *testing.T) {
	f, st := seen("a h 6.1.0 aa", "b h 6.1.0 aa", "c h 6.1.0 bb", "d h 6.1.0 cc+dd", "e h 6.1.0 dd"), &State{}
	group := func(name string) *Group { t.Helper(); return find(t, collect(t, f, st), sig(name)) }
	undo := func(name, kind string) {
		t.Helper()
		if c, err := st.Undo(group(name)); err != nil || c.Kind != kind {
			t.Errorf("%+v, %v", c, err)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want(t, f, st, "cc new 2, bb new 1, aa new 2")
	do(st.Merge(group("aa"), group("bb"), made))
	want(t, f, st, "cc new 2, aa new 3")
	if err := st.Merge(group("aa"), group("bb"), made); !errors.Is(err, ErrSameGroup) {
		t.Error(err)
	}
	do(st.SplitSignature(group("bb"), sig("bb"), made))
	want(t, f, st, "cc new 2, bb new 1, aa new 2")
	do(st.Merge(group("cc"), group("bb"), made))
	want(t, f, st, "bb new 3, aa new 2")
	undo("bb", Merge)
	undo("aa", Split)
	want(t, f, st, "cc new 2, aa new 3")
	undo("aa", Merge)
	want(t, f, st, "cc new 2, bb new 1, aa new 2")
	if _, err := st.Undo(group("aa")); !errors.Is(err, ErrNoChange) {
		t.Error(err)
	}
	// What links the signatures of a dump goes by a split too.
	do(st.SplitSignature(group("cc"), sig("cc"), made))
	want(t, f, st, "dd new 1, cc new 1, bb new 1, aa new 2")
	undo("dd", Split)
	// One dump of several with the same signature.
	own, err := st.SplitDump(group("aa"), f[0].Ref, made)
	if err != nil || text(collect(t, f, st)) != "cc new 2, bb new 1, aa new 1, "+own[:2]+" new 1" {
		t.Error(text(collect(t, f, st)))
	}
	undo("aa", Split)
	_, err = st.SplitDump(group("bb"), f[2].Ref, made)
	for _, err := range []error{err, st.SplitSignature(group("bb"), sig("bb"), made)} {
		if !errors.Is(err, ErrAlone) {
			t.Error(err)
		}
	}
	if len(st.Changes) != 0 {
		t.Errorf("%+v", st.Changes)
	}
}

// TestHostile: a host that makes signatures, kernels and links without end costs bounded memory, and the rest stays.
func TestHostile(t *testing.T) {
	b := NewBuilder(&State{}, begin)
	b.known = 100
	s := storage.Sighting{Ref: storage.Ref{Host: "good", ID: "0"}, At: begin.Add(time.Hour), Signature: sig("aa")}
	b.Add(&s, true)
	for i := range 5000 {
		s := storage.Sighting{Ref: storage.Ref{Host: "evil", ID: fmt.Sprint(i)}, At: begin, Release: fmt.Sprint("6.1.", i), Signature: sig("bb")}
		b.Add(&s, true)
		s.Signature, s.Linked = fmt.Sprintf("%016x", i), fmt.Sprintf("%016x", 1<<20+i)
		b.Add(&s, true)
	}
	gs := b.Groups()
	if len(b.keys) != 100 || gs.Beyond != 5000-49 || gs.All[0].ID != sig("aa") || gs.All[0].Dumps != 1 {
		t.Errorf("%d signatures, %d beyond, %+v", len(b.keys), gs.Beyond, gs.All[0])
	}
	if g := find(t, gs, sig("bb")); len(g.Kernels) != MaxNames || !g.More || g.Dumps != 5000 {
		t.Errorf("%d kernels of %d dumps, %v", len(g.Kernels), g.Dumps, g.More)
	}
}
