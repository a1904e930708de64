package groups

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// growing is a store to which dumps come.
type growing struct {
	storage.Hints

	mu    sync.Mutex
	dumps fakeStore
	looks int
	takes time.Duration // of a look
}

func (g *growing) Sightings(ctx context.Context, after *storage.Sighting, limit int) ([]storage.Sighting, error) {
	if after == nil {
		time.Sleep(g.takes)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if after == nil {
		g.looks++
	}
	return g.dumps.Sightings(ctx, after, limit)
}

// set makes these the dumps of the store, as seen does, and tells of the last one.
func (g *growing) set(lines ...string) {
	g.mu.Lock()
	g.dumps = seen(lines...)
	last := g.dumps[len(g.dumps)-1].Ref
	g.mu.Unlock()
	g.Give(storage.Reported, last)
}

// newsOf returns the lines that News logged, as "KIND group dump", and forgets them.
func newsOf(log *bytes.Buffer) (list []string) {
	for line := range strings.Lines(log.String()) {
		at := func(key string) string {
			_, after, _ := strings.Cut(line, " "+key+"=")
			word, _, _ := strings.Cut(after, " ")
			return strings.TrimRight(strings.Trim(word, "\n"), "0")
		}
		kind := "new"
		switch {
		case strings.Contains(line, "ERROR"):
			list = append(list, "error")
			continue
		case strings.Contains(line, "regression"):
			kind = "again"
		}
		list = append(list, kind+" "+at("group")+" "+at("dump"))
	}
	log.Reset()
	return list
}

// TestNews has dumps come one after the other, and looks after each step.
func TestNews(t *testing.T) {
	var log bytes.Buffer
	dir, store := filepath.Join(t.TempDir(), "state"), &growing{}
	n := &News{Store: store, Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))}
	look := func(want string) {
		t.Helper()
		n.fail(t.Context(), n.look(t.Context(), begin))
		if got := strings.Join(newsOf(&log), ", "); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	store.set("a h 6.1.0-9 aa", "b h 6.1.0-9", "c h 6.1.0-9")
	store.dumps[2].State = dumpdir.StateArriving
	look("") // they were there
	store.set("a h 6.1.0-9 aa", "b h 6.1.0-9 bb", "c h 6.1.0-9 cc")
	look("new cc c") // b had no report before
	store.set("a h 6.1.0-9 aa", "b h 6.1.0-9 bb", "c h 6.1.0-9 dd", "d h 6.1.0-9 ee", "e h 6.1.0-9 ee", "f h 6.1.0-9 aa", "g h 6.1.0-9 ff+aa")
	look("new ee d") // c has a better report by now, g is linked
	store.set("d h 6.1.0-9 ee", "h h 6.1.0-9 aa")
	look("new aa h") // no other dump is left
	look("")

	resolve := func(sigs ...string) {
		t.Helper()
		err := Update(dir, func(st *State) error {
			for _, s := range sigs {
				gs := collect(t, store.dumps, st)
				if _, err := st.Resolve(gs, find(t, gs, sig(s)), store.dumps, []string{"6.1.0-10"}, made); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	resolve("aa")
	store.set("d h 6.1.0-9 ee", "h h 6.1.0-9 aa", "i h 6.1.0-9 aa", "j h 6.1.0-11 aa", "k h 6.1.0-12 aa")
	look("again aa k")
	store.set("d h 6.1.0-9 ee", "h h 6.1.0-9 aa")
	look("") // and it is noted
	want(t, store.dumps, mustRead(t, dir), "aa regressed 1, ee new 1")
	if r := find(t, collect(t, store.dumps, mustRead(t, dir)), sig("aa")).Regression; r == nil || r.Dump.ID != "k" || r.Dumps != 0 || r.Kernel != "6.1.0-12" {
		t.Errorf("%+v", r)
	}
	store.set("d h 6.1.0-9 ee", "h h 6.1.0-9 aa", "l h 6.1.0-13 aa")
	look("") // another one
	resolve("aa")
	want(t, store.dumps, mustRead(t, dir), "aa resolved 2, ee new 1")
	store.set("d h 6.1.0-9 ee", "h h 6.1.0-9 aa", "l h 6.1.0-13 aa", "m h 6.1.0-14 aa")
	look("again aa m")

	good, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	put := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, FileName), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put([]byte("{"))
	store.set("d h 6.1.0-9 ee", "n h 6.1.0-9 gg")
	look("error")
	look("") // the same
	put(good)
	look("new gg n")
}

func mustRead(t *testing.T, dir string) *State {
	t.Helper()
	st, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestNewsOfMuted: nobody wants to hear of a muted group, and people know of what they split.
func TestNewsOfMuted(t *testing.T) {
	var log bytes.Buffer
	dir, store := t.TempDir(), &growing{}
	n := &News{Store: store, Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))}
	store.set("a h 6.1.0 aa", "b h 6.1.0 bb", "c h 6.1.0 bb")
	err := Update(dir, func(st *State) error {
		set(t, store.dumps, st, sig("aa"), func(_ string, m *Mark) { m.Muted = &Mute{Made: made} })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	look := func() {
		t.Helper()
		if err := n.look(t.Context(), begin); err != nil {
			t.Fatal(err)
		}
	}
	store.set("b h 6.1.0 bb", "c h 6.1.0 bb")
	look()
	err = Update(dir, func(st *State) error {
		_, err := st.SplitDump(find(t, collect(t, store.dumps, st), sig("bb")), storage.Ref{Host: "h", ID: "c"}, made)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	store.set("b h 6.1.0 bb", "c h 6.1.0 bb", "d h 6.1.0 aa")
	look()
	if got := newsOf(&log); len(got) > 0 {
		t.Errorf("told %q", got)
	}
}

// TestNote: a regression is noted before its dump is removed, by whoever removes it. A split of that dump takes it back.
func TestNote(t *testing.T) {
	dir := t.TempDir()
	f := seen("a h 6.1.0-9 aa", "b h 6.1.0-11 aa")
	err := Update(dir, func(st *State) error {
		before := f[:1]
		gs := collect(t, before, st)
		_, err := st.Resolve(gs, gs.All[0], before, []string{"6.1.0-10"}, made)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Note(t.Context(), f, dir); err != nil {
			t.Fatal(err)
		}
	}
	want(t, f[:1], mustRead(t, dir), "aa regressed 1")
	err = Update(dir, func(st *State) error {
		_, err := st.SplitDump(collect(t, f, st).All[0], f[1].Ref, made)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, f[:1], mustRead(t, dir), "aa resolved 1")
}

// TestNewsOfBurst: 500 reports at once cost a few looks, and none of them is missed. Looks that take long are far between.
func TestNewsOfBurst(t *testing.T) {
	for _, takes := range []time.Duration{0, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			store := &growing{takes: takes}
			n := &News{Store: store, Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(&log, nil))}
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { n.Run(ctx) })
			time.Sleep(takes + time.Second)
			synctest.Wait()
			var lines []string
			begin := time.Now()
			for i := range 500 {
				lines = append(lines, fmt.Sprintf("d%d h 6.1.0 %02x", i, i%50+16))
				store.set(lines...)
			}
			if took := time.Since(begin); took > 0 {
				t.Errorf("the writer waited for %v", took)
			}
			time.Sleep(5*takes + 2*restShare*takes + time.Minute)
			synctest.Wait()
			if got := newsOf(&log); len(got) != 50 {
				t.Errorf("told of %d groups, want 50: %q", len(got), got)
			}
			if store.looks > 4 {
				t.Errorf("%d looks", store.looks)
			}
			stop()
			wg.Wait()
		})
	}
}
