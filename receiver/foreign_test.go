package receiver

import (
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// TestForeign starts a server on two arriving dumps, of which another part of the process has one.
func TestForeign(t *testing.T) {
	r := newRig(t, nil)
	theirs := storage.Ref{Host: "n1", ID: "00000000000000aa"}
	ours := storage.Ref{Host: "n1", ID: "00000000000000bb"}
	for _, ref := range []storage.Ref{theirs, ours} {
		w, err := r.store.Create(t.Context(), dumpdir.Meta{Host: ref.Host, ID: ref.ID})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r.stop()
	r.start(func(c *Config) {
		c.ResumeGrace = 50 * time.Millisecond
		c.Foreign = func(ref storage.Ref) bool { return ref == theirs }
	})
	stateOf := func(ref storage.Ref) dumpdir.State {
		d, err := r.store.Open(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = d.Close() }()
		return d.State()
	}
	for begin := time.Now(); stateOf(ours) == dumpdir.StateArriving; time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("our dump is not sealed")
		}
	}
	time.Sleep(500 * time.Millisecond)
	if got := stateOf(theirs); got != dumpdir.StateArriving {
		t.Errorf("their dump was sealed: %s", got)
	}
}
