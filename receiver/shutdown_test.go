package receiver

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// stoppingStore ends a context when the first dump is resumed.
type stoppingStore struct {
	storage.Store
	stop    func()
	resumed atomic.Int64
}

func (s *stoppingStore) Resume(ctx context.Context, ref storage.Ref, opts storage.ResumeOptions) (*dumpdir.Writer, error) {
	s.resumed.Add(1)
	s.stop()
	return s.Store.Resume(ctx, ref, opts)
}

// TestShutdownBetweenDueSeals has a server told to end while it seals the first of many dumps that are due: it does not begin
// another one.
func TestShutdownBetweenDueSeals(t *testing.T) {
	r := newRig(t, nil)
	for i := range 5 {
		p := r.peer("a", newDump(t, uint64(i)))
		p.hello()
		if err := p.raw.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r.stop()
	real, err := openStore(t.Context(), r.data)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = real.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	store := &stoppingStore{Store: real, stop: cancel}
	server, err := New(Config{Store: store, Log: slog.New(slog.DiscardHandler), ResumeGrace: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.scheduleUnsealed(ctx); err != nil || len(server.expiry.due) != 5 {
		t.Fatal(len(server.expiry.due), err)
	}
	server.expire(ctx)
	if n := store.resumed.Load(); n != 1 {
		t.Errorf("%d dumps were taken up to be sealed, want the one at hand", n)
	}
}

// TestStopBeforeTheFirstList: a server that is stopped before it has listed its dumps ends without an error.
func TestStopBeforeTheFirstList(t *testing.T) {
	store, err := openStore(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	server, err := New(Config{Store: store, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.Run(ctx); err != nil {
		t.Error(err)
	}
}
