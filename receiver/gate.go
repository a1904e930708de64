package receiver

import (
	"context"
	"sync"
)

// byteGate bounds the bytes a session holds in memory at one time. Its one user
// that waits is the session's reader, so it needs no fairness.
type byteGate struct {
	mu    sync.Mutex
	free  int64
	wake  chan struct{} // holds one signal after a give
	limit int64
}

func newByteGate(limit int64) *byteGate {
	return &byteGate{free: limit, limit: limit, wake: make(chan struct{}, 1)}
}

// take waits for n bytes, which count as no more than the limit, so that no request
// waits for ever. It fails with the cause of ctx's end.
func (g *byteGate) take(ctx context.Context, n int64) error {
	n = min(n, g.limit)
	for {
		g.mu.Lock()
		if g.free >= n {
			g.free -= n
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		select {
		case <-g.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// give returns n bytes that take handed out.
func (g *byteGate) give(n int64) {
	g.mu.Lock()
	g.free += min(n, g.limit)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}
