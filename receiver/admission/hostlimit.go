package admission

import "sync"

// HostLimit bounds how many units of something, such as connections, each host may have at a time. So no host can shut
// out others. It is safe for concurrent use.
type HostLimit struct {
	limit int

	mu   sync.Mutex
	held map[string]int
}

// NewHostLimit returns a HostLimit with a limit for each host.
func NewHostLimit(limit int) *HostLimit { return &HostLimit{limit: limit, held: map[string]int{}} }

// Limit returns the limit.
func (l *HostLimit) Limit() int { return l.limit }

// Acquire takes a unit for host. It returns false if the host has reached its limit.
func (l *HostLimit) Acquire(host string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[host] >= l.limit {
		return false
	}
	l.held[host]++
	return true
}

// Release gives back a unit that host acquired.
func (l *HostLimit) Release(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[host]--; l.held[host] == 0 {
		delete(l.held, host)
	}
}
