package storage_test

import (
	"sync"
	"testing"

	"github.com/corehaul/corehaul/storage"
)

// TestHintsNeverWait: a subscriber that does not listen holds nobody up and costs no more memory; one that does gets what is
// given, of its event only.
func TestHintsNeverWait(t *testing.T) {
	var h storage.Hints
	h.Give(storage.Sealed, storage.Ref{ID: "nobody listens"})
	deaf, cancelDeaf := h.Subscribe(storage.Sealed)
	sealed, cancel := h.Subscribe(storage.Sealed)
	logs, cancelLogs := h.Subscribe(storage.LogStored)
	defer cancelLogs()
	for range 1000 {
		h.Give(storage.Sealed, storage.Ref{ID: "a"})
		if ref := <-sealed; ref.ID != "a" {
			t.Fatalf("got %v", ref)
		}
	}
	if len(deaf) != cap(deaf) || len(deaf) >= 1000 || len(logs) != 0 {
		t.Errorf("%d hints of %d wait, and %d of another event", len(deaf), cap(deaf), len(logs))
	}
	cancelDeaf()
	cancel()
	h.Give(storage.Sealed, storage.Ref{ID: "a"})
	if len(sealed) != 0 {
		t.Error("a hint after cancel")
	}
}

// TestHintsConcurrently subscribes and cancels while hints are given.
func TestHintsConcurrently(t *testing.T) {
	var h storage.Hints
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				h.Give(storage.Sealed, storage.Ref{ID: "a"})
			}
		})
		wg.Go(func() {
			for range 50 {
				c, cancel := h.Subscribe(storage.Sealed)
				h.Give(storage.Sealed, storage.Ref{ID: "b"})
				<-c
				cancel()
			}
		})
	}
	wg.Wait()
}
