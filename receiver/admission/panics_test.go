package admission

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// diary is a store of dumps that crashed one after the other.
type diary struct {
	storage.Store
	entries []storage.Entry
	listed  int
}

func (d *diary) List(context.Context, storage.Filter) ([]storage.Entry, error) {
	d.listed++
	return d.entries, nil
}

var firstCrash = time.Now().Add(-1000 * time.Hour)

// crash is the n-th one, an hour after the one before.
func crash(host string, n int) *Crash {
	return &Crash{Ref: storage.Ref{Host: host, ID: fmt.Sprint(n)}, PanicLine: "Kernel panic - not syncing: test", Began: firstCrash.Add(time.Duration(n) * time.Hour)}
}

func (d *diary) store(c *Crash) {
	m := dumpdir.Manifest{PanicLine: c.PanicLine, StartTime: c.Began}
	d.entries = append(d.entries, storage.Entry{Ref: c.Ref, Manifest: m})
}

// TestPanicsAreCountedWithoutListing asks about many dumps, of which only the first ones were there when the store was listed.
func TestPanicsAreCountedWithoutListing(t *testing.T) {
	d := new(diary)
	for n := range 10 {
		d.store(crash("web1", n))
	}
	h := panicHistory{store: d}
	want := func(r Rule, c *Crash, want int) {
		t.Helper()
		if got, err := h.count(t.Context(), &r, c); got != want || err != nil {
			t.Errorf("%s: %d before, want %d: %v", c.Ref, got, want, err)
		}
	}
	for n := range 100 {
		want(Rule{}, crash("web1", n), n)
		want(Rule{SameCrashFrom: ScopeFleet}, crash("web2", n), 2*n) // one of each host at a time
	}
	want(Rule{}, crash("web1", 5), 5) // it comes back
	want(Rule{Within: 990*time.Hour + time.Minute}, crash("web1", 50), 40)
	other := crash("web1", 99)
	other.PanicLine = "BUG: another one"
	want(Rule{}, other, 0)
	if d.listed != 1 {
		t.Errorf("listed %d times, want once", d.listed)
	}
	d.entries = d.entries[:3] // the others are removed
	if err := h.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(Rule{}, crash("web1", 200), 3)
	if err := h.refresh(t.Context()); err != nil || d.listed != 3 {
		t.Errorf("listed %d times, %v", d.listed, err)
	}
	if err := h.refresh(t.Context()); err != nil || d.listed != 3 {
		t.Errorf("nobody has asked, and it is listed %d times, %v", d.listed, err)
	}
}
