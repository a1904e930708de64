package kdumpclients

import (
	"context"
	"sync"
)

const (
	maxDecoders     = 8 // at a time, of all hosts together
	maxHostDecoders = 2
)

// decoders bounds the decompressors that run, which take memory.
type decoders struct {
	mu     sync.Mutex
	of     map[string]int
	all    int
	change chan struct{} // closed when one was released
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

// release gives back one that host acquired.
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
