package receiver

import (
	"strings"
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
	state := func(ref storage.Ref) dumpdir.State {
		d, err := r.store.Open(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = d.Close() }()
		return d.State()
	}
	r.eventually("our dump is sealed", func() bool { return state(ours) != dumpdir.StateArriving })
	// The server says which dumps it is going to seal before it seals the first of them.
	if got := state(theirs); got != dumpdir.StateArriving || strings.Contains(r.log.String(), theirs.ID) {
		t.Errorf("their dump, %s, was taken for ours:\n%s", got, r.log)
	}
}
