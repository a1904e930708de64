package receiver

import (
	"fmt"
	"sync"

	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
)

// budget hands out bytes to sessions that are not admitted. The only such session of a host may have half of them, several
// sessions of a host a quarter, and they leave a quarter for hosts that have none yet, so that a faulty host never costs
// another one its log. Sessions never wait for the budget, because those that hold bytes could wait for each other.
type budget struct {
	mu    sync.Mutex
	total int64
	free  int64
	hosts map[string]*helloShare
}

// helloShare is the share of one host.
type helloShare struct {
	sessions int // that hold something
	bytes    int64
}

func newBudget(total int64) *budget {
	return &budget{total: total, free: total, hosts: map[string]*helloShare{}}
}

// acquire gives n more bytes to a session of host that has held bytes.
func (b *budget) acquire(host string, held, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	share := helloShare{}
	if s := b.hosts[host]; s != nil {
		share = *s
	}
	if held == 0 {
		share.sessions++
	}
	share.bytes += n
	most, kept := b.total/2, int64(0)
	if share.sessions > 1 {
		most, kept = b.total/4, b.total/4
	}
	switch {
	case share.bytes > most:
		return busy(fmt.Sprintf("the sessions of host %s that are saying hello hold all that one host may", host))
	case b.free-n < kept:
		return busy("too many senders are saying hello")
	}
	b.free -= n
	b.hosts[host] = &share
	return nil
}

func busy(text string) error {
	return &protocol.Error{Code: protocol.CodeBusy, Text: text, RetryAfter: intake.BusyRetryAfter}
}

func (b *budget) available() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.free
}

// release returns n of the held bytes of a session of host.
func (b *budget) release(host string, held, n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
	s := b.hosts[host]
	if s.bytes -= n; held == n {
		s.sessions--
	}
	if s.sessions == 0 {
		delete(b.hosts, host)
	}
}
