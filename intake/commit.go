package intake

import (
	"sync/atomic"
	"time"
)

// committer says when to commit: when enough bytes were put, or when the first of them has waited long enough. Note
// and End may be called from any goroutine.
type committer struct {
	bytes    int64
	interval time.Duration
	last     bool          // whether to commit what End finds uncommitted
	pending  atomic.Int64  // bytes put since the last commit began
	kick     chan struct{} // holds one signal when pending grew
	ended    chan struct{}
}

// newCommitter returns a committer for these limits.
func newCommitter(bytes int64, interval time.Duration, last bool) *committer {
	return &committer{bytes: bytes, interval: interval, last: last, kick: make(chan struct{}, 1), ended: make(chan struct{})}
}

// Note says that a chunk of size bytes was put.
func (c *committer) Note(size int64) {
	c.pending.Add(max(size, 1)) // a chunk of zero pages has no bytes and needs an ack, too
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// End says that no more chunks come.
func (c *committer) End() { close(c.ended) }

// Run calls commit whenever it is time, and with last once more after End if chunks are left. It returns then, or with the
// first error of commit.
func (c *committer) Run(commit func() error) error {
	for more := true; more; {
		more = c.gather()
		if c.pending.Swap(0) == 0 || !more && !c.last {
			continue
		}
		if err := commit(); err != nil {
			return err
		}
	}
	return nil
}

// gather waits for a chunk, and then until enough bytes are put or the interval is over. It returns false after End.
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
