package sender

import (
	"context"
	"sync"

	"github.com/corehaul/corehaul/protocol"
)

// Limits of unacknowledged chunks. The receiver's window counts payload bytes, and chunks of zero pages have none. These
// limits bound the memory for such chunks on both sides.
const (
	maxInFlight = 1024
	minCost     = 1 << 10 // bytes that a chunk counts for at least
)

// flow is the send window. It knows which chunks are not acknowledged, and makes the writer wait until the next chunk
// fits.
type flow struct {
	mu      sync.Mutex
	changed sync.Cond
	window  uint64
	bytes   uint64
	chunks  map[uint64]flight
	err     error // set once; ends all waiting
	durable func(flight)
}

// flight is a chunk that is not acknowledged.
type flight struct {
	cost, pages uint64
}

// newFlow returns a flow with a window in bytes. It calls durable, under its lock, for every acknowledged chunk.
func newFlow(window uint64, durable func(flight)) *flow {
	f := &flow{window: window, chunks: make(map[uint64]flight, maxInFlight), durable: durable}
	f.changed.L = &f.mu
	return f
}

// reserve waits until chunk seq fits the window and adds it. A single chunk always fits. The error is that of fail, that
// of ctx, or errStop if stop is done before the chunk fits.
func (f *flow) reserve(ctx, stop context.Context, seq uint64, c flight) error {
	wake := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	}
	defer context.AfterFunc(ctx, wake)()
	defer context.AfterFunc(stop, wake)()
	c.cost = max(c.cost, minCost)
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.err == nil && ctx.Err() == nil && !f.fits(c) {
		if stop.Err() != nil {
			return errStop
		}
		f.changed.Wait()
	}
	if f.err != nil {
		return f.err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f.chunks[seq] = c
	f.bytes += c.cost
	return nil
}

// fits reports whether c fits the window. mu is held.
func (f *flow) fits(c flight) bool {
	return len(f.chunks) == 0 || f.bytes+c.cost <= f.window && len(f.chunks) < maxInFlight
}

// ack removes the acknowledged chunks from the window. Numbers of chunks that were not sent have no effect.
func (f *flow) ack(a *protocol.Ack) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.WindowBytes > 0 {
		f.window = a.WindowBytes
	}
	// The loop is over sent chunks, which are bounded. Ranges in an ACK have any length.
	for seq, c := range f.chunks {
		if a.Durable.Contains(seq) {
			delete(f.chunks, seq)
			f.bytes -= c.cost
			f.durable(c)
		}
	}
	f.changed.Broadcast()
}

// inFlight returns the number of sent chunks without an acknowledgement.
func (f *flow) inFlight() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.chunks)
}

// unacked returns the bytes of these chunks.
func (f *flow) unacked() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

// fail makes reserve return err from now on. The first error stays.
func (f *flow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	f.changed.Broadcast()
}

// setWindow sets the window to n bytes.
func (f *flow) setWindow(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.window = n
	f.changed.Broadcast()
}
