package intake

import (
	"sync/atomic"
	"time"
)

// committer says when what was put into a dump is to be made durable: when enough of it has
// come together, or the first of it has waited long enough. Note and End may be called from
// any goroutine.
type committer struct {
	bytes    int64
	interval time.Duration
	pending  atomic.Int64  // bytes put since the last commit began
	kick     chan struct{} // holds one signal when pending grew
	ended    chan struct{}
}

// newCommitter returns a committer for so many bytes and so long a time.
func newCommitter(bytes int64, interval time.Duration) *committer {
	return &committer{bytes: bytes, interval: interval, kick: make(chan struct{}, 1), ended: make(chan struct{})}
}

// Note tells that a chunk with so many bytes was put.
func (c *committer) Note(size int64) {
	c.pending.Add(max(size, 1)) // a chunk of zero pages has no bytes, and wants its ack too
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// End tells that nothing more is put.
func (c *committer) End() { close(c.ended) }

// Run calls commit whenever it is time, and once more after End if there is something left. It returns
// then, or with the first error of commit.
func (c *committer) Run(commit func() error) error {
	for more := true; more; {
		more = c.gather()
		if c.pending.Swap(0) == 0 {
			continue
		}
		if err := commit(); err != nil {
			return err
		}
	}
	return nil
}

// gather waits until something was put, and then until it is enough or the time is over.
// It returns false when nothing more comes.
func (c *committer) gather() bool {
	select {
	case <-c.kick:
	case <-c.ended:
		return false
	}
	timer := time.NewTimer(c.interval)
	defer timer.Stop()
	for c.pending.Load() < c.bytes {
		select {
		case <-c.kick:
		case <-timer.C:
			return true
		case <-c.ended:
			return false
		}
	}
	return true
}
