package kdumpclients

import (
	"context"
	"sync"
)

const (
	maxDecoders     = 8 // at a time, for all hosts together
	maxHostDecoders = 2
)

// decoders bounds the running decompressors, because they take memory.
type decoders struct {
	mu     sync.Mutex
	of     map[string]int
	all    int
	change chan struct{} // closed when one is released
}

func newDecoders() *decoders { return &decoders{of: map[string]int{}, change: make(chan struct{})} }

// acquire waits until host may have one more decompressor.
func (d *decoders) acquire(ctx context.Context, host string) error {
	for {
		d.mu.Lock()
		if d.all < maxDecoders && d.of[host] < maxHostDecoders {
			d.all++
			d.of[host]++
			d.mu.Unlock()
			return nil
		}
		change := d.change
		d.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// release returns a decompressor that host acquired.
func (d *decoders) release(host string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all--
	if d.of[host]--; d.of[host] == 0 {
		delete(d.of, host)
	}
	close(d.change)
	d.change = make(chan struct{})
}
