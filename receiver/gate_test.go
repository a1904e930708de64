package receiver

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestByteGate(t *testing.T) {
	g := newByteGate(10)
	if err := g.take(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	got := make(chan error)
	go func() { got <- g.take(ctx, 4) }()
	select {
	case err := <-got:
		t.Fatalf("took 4 of 3 bytes: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	cancel(cause)
	if err := <-got; !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
	go func() { got <- g.take(t.Context(), 100) }() // counts as 10
	g.give(7)
	if err := <-got; err != nil {
		t.Error(err)
	}
	g.give(100)
	if g.free != 10 {
		t.Errorf("%d bytes are free, want 10", g.free)
	}
}
