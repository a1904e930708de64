package sender

import (
	"context"
	"sync"

	"github.com/corehaul/corehaul/protocol"
)

// Bounds on what is on its way. The receiver's window counts payload bytes, but chunks
// of zero pages have none: these keep the memory for them bounded on both sides.
const (
	maxInFlight = 1024
	minCost     = 1 << 10 // what a chunk at least counts for
)

// flow is the window: it knows which chunks are on their way and holds the writer back
// until there is room for the next one.
type flow struct {
	mu      sync.Mutex
	changed sync.Cond
	window  uint64
	bytes   uint64
	chunks  map[uint64]flight
	err     error // set once: nobody is let through any more
	durable func(flight)
}

// flight is a chunk on its way.
type flight struct {
	cost, pages uint64
}

// newFlow returns a flow with a window in bytes. durable is called, under lock, for every
// chunk that the receiver has acknowledged.
func newFlow(window uint64, durable func(flight)) *flow {
	f := &flow{window: window, chunks: make(map[uint64]flight, maxInFlight), durable: durable}
	f.changed.L = &f.mu
	return f
}

// reserve waits until chunk seq fits the window and counts it in. One chunk always
// fits. It returns the error that ended the flow, ctx's, or errStop when stop is done
// before there is room.
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

// fits needs mu.
func (f *flow) fits(c flight) bool {
	return len(f.chunks) == 0 || f.bytes+c.cost <= f.window && len(f.chunks) < maxInFlight
}

// ack takes the receiver's word for what is durable. Chunks that were not sent are none
// of its business and change nothing.
func (f *flow) ack(a *protocol.Ack) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.WindowBytes > 0 {
		f.window = a.WindowBytes
	}
	// Over what is on its way, which is bounded; ranges in an ACK can be of any length.
	for seq, c := range f.chunks {
		if a.Durable.Contains(seq) {
			delete(f.chunks, seq)
			f.bytes -= c.cost
			f.durable(c)
		}
	}
	f.changed.Broadcast()
}

// inFlight returns how many chunks are sent and not acknowledged.
func (f *flow) inFlight() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.chunks)
}

// fail ends the flow.
func (f *flow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	f.changed.Broadcast()
}

// setWindow opens the window.
func (f *flow) setWindow(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.window = n
	f.changed.Broadcast()
}
